package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// testFolder has a file with bytes that look like a frame's, and an empty one further down.
func testFolder(t *testing.T) (folder string, content []byte) {
	t.Helper()
	folder = t.TempDir()
	content = bytes.Repeat([]byte{0, 0xeb, 0xdf, '\n'}, 50_000)
	if err := errors.Join(os.Mkdir(filepath.Join(folder, "sub"), 0o755),
		os.WriteFile(filepath.Join(folder, "sub", "empty"), nil, 0o600),
		os.WriteFile(filepath.Join(folder, "file"), content, 0o600)); err != nil {
		t.Fatal(err)
	}
	return folder, content
}

// testReport is a guest's report with every kind of frame.
func testReport(t *testing.T, folder string) []byte {
	t.Helper()
	var b bytes.Buffer
	r := &reportWriter{w: &b}
	stdout, stderr := r.stream(frameStdout, 0), r.stream(frameStderr, 0)
	_, err1 := stdout.Write(bytes.Repeat([]byte("long "), frameLimit))
	_, err2 := stderr.Write([]byte("complaint"))
	err := errors.Join(err1, err2,
		sendOut(folder, r.stream(frameOut, 0)),
		sendOut(filepath.Join(folder, "file"), r.stream(frameOut, 1)),
		r.send(frame{frameNoOut, 2, []byte("it is not there")}),
		r.send(frame{kind: frameExit, payload: []byte{42}}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReport(t *testing.T) {
	from, content := testFolder(t)
	to := t.TempDir()
	var stdout, stderr bytes.Buffer
	r := &receiver{&stdout, &stderr, []*out{
		{pair: pair{host: filepath.Join(to, "folder")}},
		{pair: pair{host: filepath.Join(to, "single")}},
		{pair: pair{host: filepath.Join(to, "nothing"), guest: "/nothing"}},
	}}
	noise := bytes.NewReader([]byte{0, 0xeb, 0xeb})
	status, err := r.receive(io.MultiReader(noise, bytes.NewReader(testReport(t, from))))
	if status != 42 || err != nil {
		t.Fatalf("receive: %d, %v", status, err)
	}
	if stdout.Len() != 5*frameLimit || stderr.String() != "complaint" {
		t.Errorf("%d bytes of stdout; stderr is %q", stdout.Len(), stderr.String())
	}
	if err := errors.Join(r.outs[0].save(), r.outs[1].save()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"folder/file", "single"} {
		got, err := os.ReadFile(filepath.Join(to, name))
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s has %d bytes, want %d: %v", name, len(got), len(content), err)
		}
	}
	if info, err := os.Stat(filepath.Join(to, "folder/sub/empty")); err != nil || info.Mode() != 0o600 {
		t.Errorf("the empty file: %v, %v", info, err)
	}
	if err := r.outs[2].save(); err == nil || err.Error() != "getting /nothing: it is not there" {
		t.Errorf("the missing file gives %v", err)
	}
}

func TestReportEndsEarly(t *testing.T) {
	folder, _ := testFolder(t)
	report := testReport(t, folder)
	for _, n := range []int{0, 5, frameHeader, frameHeader + 1, frameHeader + frameLimit, len(report) - 1} {
		_, err := (&receiver{io.Discard, io.Discard, []*out{{}, {}, {}}}).receive(bytes.NewReader(report[:n]))
		if err != errNoStatus {
			t.Errorf("after %d bytes: %v, want %v", n, err, errNoStatus)
		}
	}
}

func TestReportDamaged(t *testing.T) {
	folder, _ := testFolder(t)
	report := testReport(t, folder)
	lost := append(bytes.Clone(report[:100]), report[101:]...)
	if _, err := (&receiver{io.Discard, io.Discard, nil}).receive(bytes.NewReader(lost)); err != errReportBroken {
		t.Errorf("a lost byte gives %v, want %v", err, errReportBroken)
	}
	if _, err := (&receiver{io.Discard, io.Discard, nil}).receive(bytes.NewReader(report)); err != errReportBroken {
		t.Errorf("an unknown -out gives %v, want %v", err, errReportBroken)
	}
}
