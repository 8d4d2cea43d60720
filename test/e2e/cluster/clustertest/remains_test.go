//go:build integration && linux

package clustertest

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"keymount/test/e2e/cluster/internal/layout"
)

// A snapshot is what a cluster could leave in a machine.
type snapshot struct {
	processes map[string]string // command lines by process and start
	mounts    []string
	links     []string
	cgroups   []string // of the cluster
}

// look takes a snapshot. Of processes it takes those of the cluster: that are in its control groups or name its folder.
func look(t *testing.T, dir layout.Dir) snapshot {
	t.Helper()
	s := snapshot{processes: map[string]string{}}
	stats, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, proc := range stats {
		groups, _ := os.ReadFile(filepath.Join(proc, "cgroup")) // it may have ended by now, here and below
		line, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		if filepath.Base(proc) == strconv.Itoa(os.Getpid()) || !bytes.Contains(groups, []byte(dir.Cgroup())) && !bytes.Contains(line, []byte(dir)) {
			continue
		}
		if id := identity(proc); id != "" {
			s.processes[id] = strings.ReplaceAll(string(line), "\x00", " ")
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	s.mounts = strings.Split(strings.TrimSpace(string(mounts)), "\n")
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		s.links = append(s.links, link.Name)
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == dir.Cgroup() {
			s.cgroups = append(s.cgroups, path)
		}
		return nil // groups of others come and go
	})
	return s
}

// identity tells a process from a later one with its number. It is empty for one that has ended, reaped or not.
func identity(proc string) string {
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from the third on
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return filepath.Base(proc) + " started " + fields[19]
}

// remains lists what there is now of a cluster that was there at during, and not before.
func remains(t *testing.T, dir layout.Dir, before, during snapshot) []string {
	t.Helper()
	now := look(t, dir)
	var left []string
	for id, line := range during.processes {
		pid, _, _ := strings.Cut(id, " ")
		if identity("/proc/"+pid) == id {
			left = append(left, "process "+id+": "+line)
		}
	}
	for id, line := range now.processes {
		if _, known := during.processes[id]; !known {
			left = append(left, "process "+id+": "+line)
		}
	}
	for _, mount := range now.mounts {
		if !slices.Contains(before.mounts, mount) {
			left = append(left, "mount "+mount)
		}
	}
	for _, link := range now.links {
		if !slices.Contains(before.links, link) {
			left = append(left, "link "+link)
		}
	}
	for _, group := range now.cgroups {
		left = append(left, "control group "+group)
	}
	entries, err := os.ReadDir(string(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != "logs" && !strings.HasPrefix(entry.Name(), ".") {
			left = append(left, fmt.Sprintf("file %s/%s", dir, entry.Name()))
		}
	}
	return left
}
