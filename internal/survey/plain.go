package survey

import (
	"reflect"

	"github.com/ebpfdump/ebpfdump/internal/terminal"
)

// plain returns a copy of the report with all texts escaped for display. A report read
// from a file may have been written by anybody.
func (r *Report) plain() *Report {
	clean := plainValue(reflect.ValueOf(r)).Interface()
	return clean.(*Report)
}

// plainValue copies a value by reflection, so that no field can be forgotten.
func plainValue(v reflect.Value) reflect.Value {
	clean := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.String:
		clean.SetString(terminal.Plain(v.String()))
	case reflect.Pointer:
		if !v.IsNil() {
			clean.Set(reflect.New(v.Type().Elem()))
			clean.Elem().Set(plainValue(v.Elem()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			clean.Field(i).Set(plainValue(v.Field(i)))
		}
	case reflect.Slice:
		if !v.IsNil() {
			clean.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		}
		for i := range v.Len() {
			clean.Index(i).Set(plainValue(v.Index(i)))
		}
	case reflect.Map:
		if !v.IsNil() {
			clean.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
		}
		for _, key := range v.MapKeys() {
			clean.SetMapIndex(plainValue(key), plainValue(v.MapIndex(key)))
		}
	default:
		clean.Set(v)
	}
	return clean
}
