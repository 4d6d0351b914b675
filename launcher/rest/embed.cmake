# cmake -DINPUT=openapi.json -DOUTPUT=openapi_document.cpp -P embed.cmake: the document as a function of rest/service.h.
file(READ ${INPUT} content)
file(WRITE ${OUTPUT} "// Written by launcher/rest/embed.cmake.
#include \"launcher/rest/service.h\"

namespace coxswain::launcher {

std::string_view openapi_document() {
  return R\"json(${content})json\";
}

}  // namespace coxswain::launcher
")
