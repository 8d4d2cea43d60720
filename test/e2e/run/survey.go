//go:build integration && linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Things that a run can leave behind, each a line of text that names it.
type found map[string]bool

// survey notes what there is on the machine: mounts, links, control groups, and processes that are not simply part of it.
func survey() (found, error) {
	all := found{}
	return all, errors.Join(all.mounts(), all.links(), all.cgroups(), all.processes())
}

// compare waits until nothing is there that was not there before: the kernel takes its time to end what was killed.
func (before found) compare(ctx context.Context, p paths) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		after, err := survey()
		if err != nil {
			return err
		}
		left := before.leaks(after, p)
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("left behind on this machine:\n  %s", strings.Join(left, "\n  "))
		case <-time.After(100 * time.Millisecond): // nothing tells when it is gone
		}
	}
}

// leaks are what is there now, was not before, and is a run's.
func (before found) leaks(after found, p paths) []string {
	var left []string
	for what := range after {
		if !before[what] && ours(what, p) {
			left = append(left, what)
		}
	}
	slices.Sort(left)
	return left
}

func (all found) mounts() error {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 4 {
			all["mount "+f[4]] = true
		}
	}
	return lines.Err()
}

func (all found) links() error {
	links, err := net.Interfaces()
	for _, l := range links {
		all["network link "+l.Name] = true
	}
	return err
}

func (all found) cgroups() error {
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all["control group "+path] = true
		}
		return nil // groups of others come and go
	})
}

// processes notes each process by its program, its namespaces and what it was started with: enough to tell whether it is of a run.
func (all found) processes() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join("/proc", e.Name())
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil {
			continue // not a process, one of the kernel's, or gone
		}
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		groups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		text := strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
		all[fmt.Sprintf("process %s %s: %s %s", e.Name(), exe, text[:min(len(text), 200)], clusterGroup(string(groups)))] = true
	}
	return nil
}

// clusterGroup finds the name of a cluster's control group in a process' list of groups, "" if it is in none.
func clusterGroup(list string) string {
	_, rest, ok := strings.Cut(list, "/keymount-cluster-")
	if !ok {
		return ""
	}
	return "keymount-cluster-" + rest[:strings.IndexAny(rest+"/", "/\n")]
}

// ours tells whether something is a run's. Mounts and links of the machine itself are, whoever's they look like: nothing else is
// expected to make any meanwhile. Processes and groups of others come and go, so those must bear a sign of the cluster.
func ours(what string, p paths) bool {
	kind, _, _ := strings.Cut(what, " ")
	if kind == "mount" || kind == "network" {
		return true
	}
	sign, _ := os.ReadFile(p.sign()) // there is none if no cluster was started
	return len(sign) > 0 && strings.Contains(what, string(sign)) || strings.Contains(what, p.cluster) || strings.Contains(what, p.bin)
}
