package survey

import (
	_ "embed"
	"html/template"
	"io"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// WriteHTML prints the report as a self-contained page with styles and drawing. It
// follows the reader's preference for light or dark.
func (r *Report) WriteHTML(w io.Writer) error {
	r = r.plain()
	all := r.tables()
	return pageTemplate.Execute(w, map[string]any{
		"System":      r.System,
		"Map":         r.layerMap(),
		"HookMaps":    r.hookMaps(),
		"Overview":    all[0],
		"Conclusions": r.Conclusions(),
		"History":     r.historyTable(),
		"Tables":      all[1:],
	})
}

// mapHeads are the titles over the columns of the layer map.
var mapHeads = []mapSegment{
	{X: mapColumns[linkPlace][0], Width: mapColumns[linkPlace][1], Header: "link"},
	{X: mapColumns[networkPlace][0], Width: mapColumns[networkPlace][1], Header: "network"},
	{X: mapColumns[transportPlace][0], Width: mapColumns[transportPlace][1], Header: "transport"},
	{X: mapColumns[messagePlace][0], Width: mapColumns[messagePlace][1], Header: "payload"},
}

// hookMap is the drawing of one hook.
type hookMap struct {
	Name string
	Map  layerMap
}

func (r *Report) hookMaps() []hookMap {
	var all []hookMap
	for i := range r.Hooks {
		if h := &r.Hooks[i]; len(h.sockets(func(*HookSocket) bool { return true })) > 0 {
			all = append(all, hookMap{h.Name, h.layerMap()})
		}
	}
	return all
}
