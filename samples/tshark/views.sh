# shellcheck shell=sh
# What the scripts here share: . views.sh checks the argument, which is a capture,
# and defines the functions below. A file that breaks off is read as far as it goes.

# stop MESSAGE STATUS ends the script.
stop() {
	echo "${0##*/}: $1" >&2
	exit "$2"
}

[ $# -eq 1 ] || stop "usage: $0 FILE.pcapng" 2
[ -e "$1" ] || stop "$1: there is no such file" 1
[ -f "$1" ] || stop "$1: give a file, since it is read more than once" 1
for tool in tshark capinfos; do
	command -v $tool >/dev/null || stop "$tool is missing: on Debian and Ubuntu, apt install tshark brings it" 1
done
name=$1
case $name in
/*) file=$name ;;
*) file=./$name ;; # it may begin with -
esac
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
broken=

# reading COMMAND... runs one that reads the capture, and remembers its complaints.
reading() { LC_ALL=C.UTF-8 "$@" 2>"$work/errors" || broken=$(sed '/^Running as user/d; /^ /d; /error occurred after/d; s/^[a-z]*: //' "$work/errors" | head -n 1); }

reading capinfos -I "$file" >"$work/infos"
sed -n 's/^ *Name = //p' "$work/infos" >"$work/names"
grep -Eq '.:(kernel|user|net|link|sent|cgroup|wire|drop)$' "$work/names" ||
	stop "$name: no capture of ebpfdump: none of its interfaces is a socket's view, such as tcp:kernel" 1
broken= # what reads the packets says it again

# need VIEW WHY ends the script if the capture has no such view.
need() { grep -q ":$1\$" "$work/names" || stop "$name: it has no $1 view: $2" 1; }

# rows FIELD... writes a line for each packet into $work/rows: its id, its
# interface's name and description, the fields, the comment.
rows() {
	for field; do
		shift
		set -- "$@" -e "$field"
	done
	reading tshark -r "$file" -o tcp.desegment_tcp_streams:FALSE -T fields -e frame.packet_id -e frame.interface_name \
		-e frame.interface_description "$@" -e frame.comment >"$work/rows"
}

# unique ends the script if an id stands for several packets: nobody knows then
# which read got which one.
unique() {
	twice=$(awk -F'\t' '$1 != "" && $2 ~ /:kernel$/ && seen[$1]++ { print $1; exit }' "$work/rows")
	[ -z "$twice" ] ||
		stop "$name: several packets have the id $twice: put captures together with ebpfdump convert, which keeps their ids apart" 1
}

# finish tells whether all of the file was read.
finish() { [ -z "$broken" ] || stop "$name: this was its beginning: $broken" 1; }
