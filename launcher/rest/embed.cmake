# cmake -DOUTPUT=embedded.cpp "-DFILES=openapi_document=openapi.json;page_html=index.html" -P embed.cmake: each file as a
# function of rest/embedded.h.
set(functions "")
foreach(entry IN LISTS FILES)
  string(REGEX MATCH "^([^=]+)=(.*)$" matched "${entry}")
  set(name ${CMAKE_MATCH_1})
  file(READ ${CMAKE_MATCH_2} content)
  string(APPEND functions "std::string_view ${name}() {
  return R\"embedded(${content})embedded\";
}

")
endforeach()
file(WRITE ${OUTPUT} "// Written by launcher/rest/embed.cmake.
#include \"launcher/rest/embedded.h\"

namespace coxswain::launcher {

${functions}}  // namespace coxswain::launcher
")
