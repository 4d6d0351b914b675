#!/bin/sh
# Writes the King James Bible as Debian's bible-kjv prints it (4.4 MB, one verse a line): text.sh [kjv.txt]
set -eu
out=${1:-kjv.txt}
command -v bible >/dev/null || { echo "text.sh: no program \`bible\`; install the package bible-kjv" >&2; exit 71; }
bible -f gen1:1-rev22:21 > "$out.part"
mv "$out.part" "$out"
