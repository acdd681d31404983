# Makes a picture of the first drawing of a packet on a page that explain --html has written. Its colours
# are those of the page on paper: not all that draws pictures knows variables.
/<style>/ { style = 1 }
/<\/style>/ { style = 0 }
style && /--[a-z-]+:/ {
	for (rest = $0; match(rest, /--[a-z-]+: *#[0-9a-f]+/); rest = substr(rest, RSTART + RLENGTH)) {
		split(substr(rest, RSTART, RLENGTH), pair, / *: */)
		if (!(pair[1] in colour))
			colour[pair[1]] = pair[2]
	}
}
style && /^svg / {
	for (line = $0; match(line, /var\(--[a-z-]+\)/); )
		line = substr(line, 1, RSTART - 1) colour[substr(line, RSTART + 4, RLENGTH - 5)] substr(line, RSTART + RLENGTH)
	sub(/, \.legend [.a-z]+/, "", line)
	css = css line "\n"
}
/^<svg / && !drawing {
	drawing = 1
	sub(/<svg /, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"660\" font-family=\"system-ui, DejaVu Sans, sans-serif\" font-size=\"12\" ")
	print
	print "<style>\n" css "</style>"
	print "<rect width=\"100%\" height=\"100%\" fill=\"" colour["--page"] "\" />"
	next
}
drawing == 1 { print }
/<\/svg>/ && drawing == 1 { drawing = 2 }
