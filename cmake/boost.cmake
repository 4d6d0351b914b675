# Boost's headers as deps/install.sh unpacks them: of Asio and Beast there is nothing to link. COX_BOOST_DIR names another
# include folder (1.80 or later: awaitable operators, cancellation).
set(COX_BOOST_DIR ${PROJECT_SOURCE_DIR}/.deps/libboost1.81-dev/usr/include CACHE PATH "folder that holds boost/")
if(NOT EXISTS ${COX_BOOST_DIR}/boost/beast.hpp)
  message(FATAL_ERROR "boost: no ${COX_BOOST_DIR}/boost/beast.hpp; run `make build`, which unpacks it into .deps")
endif()
add_library(cox_boost INTERFACE)
target_include_directories(cox_boost SYSTEM INTERFACE ${COX_BOOST_DIR})
