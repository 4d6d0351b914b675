# cmake -DOUTPUT=catalogue_data.cpp -P embed.cmake: the JSON files of this folder as functions of cluster/catalogue_data.h.
set(text "// Written by cluster/catalogue/embed.cmake.\n#include \"cluster/catalogue_data.h\"\n\nnamespace coxswain::cluster {\n")
foreach(name devices nodes networks)
  file(READ ${CMAKE_CURRENT_LIST_DIR}/${name}.json content)
  string(APPEND text "\nstd::string_view catalogue_${name}_text() {\n  return R\"json(${content})json\";\n}\n")
endforeach()
string(APPEND text "\n}  // namespace coxswain::cluster\n")
file(WRITE ${OUTPUT} "${text}")
