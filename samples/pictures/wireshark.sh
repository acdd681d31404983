#!/usr/bin/env bash
# Takes the picture of Wireshark with our profile: of a real one, on a screen that nobody sees. It
# writes OUT/wireshark.png, what the screen shows, and OUT/wireshark.svg, what the window paints, and
# fails unless Wireshark shows what the profile is for.
#
#	wireshark.sh EBPFDUMP CAPTURE OUT
set -euo pipefail
[ $# = 3 ] || { echo "wireshark.sh: say EBPFDUMP CAPTURE OUT" >&2; exit 2; }
here=$(dirname "$(realpath "$0")")
ebpfdump=$(realpath "$1") capture=$(realpath "$2") out=$(realpath "$3")
width=1200 height=620
rm -f "$out"/wireshark.{svg,png}

work=$(mktemp -d)
started=()
end() {
	[ ${#started[@]} = 0 ] || kill "${started[@]}" 2>/dev/null || true
	wait
	rm -rf "$work"
}
trap end EXIT
fail() {
	echo "wireshark.sh: $*" >&2
	import -window root "$out/failed.png" && echo "the screen is in $out/failed.png" >&2
	cat "$work"/*.log >&2
	exit 1
}
# until_ SENTENCE COMMAND... waits for a command to succeed.
until_() {
	local what=$1 i
	shift
	for ((i = 0; i < ${tries:-600}; i++)); do
		! "$@" >/dev/null 2>&1 || return 0
		sleep 0.1
	done
	fail "waited a minute in vain until $what"
}

# A user who has nothing but our profile. The size of the window and the place of the bar below the
# packets are what he has left behind.
export HOME=$work/home XDG_CONFIG_HOME=$work/home/.config XDG_DATA_HOME=$work/home/.local/share LANG=C.UTF-8
export XDG_RUNTIME_DIR=$work/run
mkdir -p "$HOME" && mkdir -m 700 "$XDG_RUNTIME_DIR"
"$ebpfdump" wireshark profile install --lua >"$work/install.log"
profile=$XDG_CONFIG_HOME/wireshark/profiles/ebpfdump
cat >"$XDG_CONFIG_HOME/wireshark/recent_common" <<END
gui.geometry_main_x: 0
gui.geometry_main_y: 0
gui.geometry_main_width: $width
gui.geometry_main_height: $height
END
echo "gui.geometry_main_upper_pane: 200" >>"$profile/recent"

Xvfb -displayfd 3 -screen 0 "${width}x${height}x24" -nolisten tcp 3>"$work/display" 2>"$work/Xvfb.log" &
started+=($!)
until_ "there is a screen" test -s "$work/display"
DISPLAY=:$(cat "$work/display")
export DISPLAY

# Qt paints for whoever asks: into a file as well.
drawing=
libraries=$(ldd "$(command -v wireshark)")
for qt in Qt5Widgets Qt6Widgets; do
	if [[ $libraries = *lib$qt* ]] && pkg-config "$qt"; then
		drawing=$work/drawing.so
		# shellcheck disable=SC2046
		g++ -std=c++17 -O1 -Wall -Wextra -Werror -fPIC -shared "$here/drawing.cpp" -o "$drawing" $(pkg-config --cflags --libs "$qt")
	fi
done

# The sixth packet is what userspace got: the profile and the post-dissector say most of it.
EBPFDUMP_DRAWING=$work/wireshark.svg LD_PRELOAD=$drawing wireshark -C ebpfdump -g 6 "$capture" >"$work/wireshark.log" 2>&1 &
wireshark=$!
started+=($wireshark)
name=$(basename "$capture")
until_ "Wireshark shows $name" xdotool search --onlyvisible --name "$name"
read -r window < <(xdotool search --onlyvisible --name "$name")
xdotool windowfocus --sync "$window"

# draw asks for a drawing of the window as it is now.
drawn() { ! test -e "$work/wireshark.svg.ask"; }
draw() {
	touch "$work/wireshark.svg.ask"
	until_ "Wireshark has drawn itself" drawn
}
# shows TEXT... tells whether each is to be read in the window.
shows() {
	local text
	draw
	for text; do
		grep -qE ">$text<" "$work/wireshark.svg" || { missing=$text; return 1; }
	done
}
missing=

if [ -n "$drawing" ]; then
	until_ "the packets are there" shows 'Packets: 9 .*' 'ebpfdump, packet 1'
fi
# The last line of the packet's tree is the post-dissector's: open it.
xdotool mousemove --window "$window" 300 $((height / 2 + 120)) click 1
xdotool key --window "$window" Home End Right
xdotool mousemove $((width - 1)) $((height - 1)) # no tip in the picture

if [ -n "$drawing" ]; then
	until_ "the post-dissector's lines are there" shows 'Since the filter saw it: .*'
	shows 'Profile: ebpfdump' userspace dropped 'lost before' 'all views of this' No. Time View Id Source Destination Protocol \
		Length Payload Comment Info udp:wire udp:cgroup udp:kernel udp:net udp:link udp:user udp:sent 303132333435363738390a ||
		fail "the window does not show: $missing"
	# Nothing but the main window: no dialog about Lua, the profile or the user.
	[ "$(cat "$work/wireshark.svg.windows")" = "WiresharkMainWindow	[*]$name" ] ||
		fail "other windows are open: $(cat "$work/wireshark.svg.windows")"
	cp "$work/wireshark.svg" "$out/wireshark.svg"
	import -window root "$out/wireshark.png"
	# press TEXT N presses the button and waits until N packets are left.
	press() {
		local place
		place=$(sed -nE "s/^.*<text x=\"([0-9.]+)\" y=\"([0-9.]+)\".*>$1<.*/\1 \2/p" "$out/wireshark.svg")
		# shellcheck disable=SC2086
		xdotool mousemove --window "$window" ${place//.[0-9]/} click 1
		until_ "the button $1 leaves $2 packets" shows "Packets: 9 · Displayed: $2 .*"
	}
	press 'all views of this' 6
	press userspace 1
	press dropped 0
	press 'lost before' 0
else
	sleep 3
	echo "NOT DRAWN: the headers of the Qt that this Wireshark has are missing (qtbase5-dev, qt6-base-dev): $out/wireshark.png alone is made" >&2
	import -window root "$out/wireshark.png"
fi
[ "$(xdotool search --onlyvisible --name . | wc -l)" = 1 ] || fail "there is more than one window"

xdotool key --window "$window" ctrl+q
until_ "Wireshark has ended" eval "! kill -0 $wireshark"
! grep -iE 'lua|error|warning' "$work/wireshark.log" || fail "Wireshark complains"
# What Wireshark has read it writes again: so it has taken the columns' widths.
grep -q '"%Cus:frame.interface_name", 104' "$profile/recent" || fail "Wireshark has not taken the columns' widths: $(grep -A 12 column.width "$profile/recent")"
