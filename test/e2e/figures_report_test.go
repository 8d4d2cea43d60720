//go:build integration && linux

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"keymount/internal/benchdoc"
	"keymount/test/e2e/rig"
)

// A cost is what something took of others: requests to vaults and Entra ID, and to the API server.
type cost struct{ vault, reads, writes, events, watches int }

// spending begins to count; the function returned tells what was spent since.
func spending(s *rig.Scenario, driver *rig.Daemon) func() cost {
	s.Helper()
	before, asked := s.Emulator.Requests().Total(), driver.Asking()
	return func() cost {
		s.Helper()
		c := cost{vault: s.Emulator.Requests().Total() - before}
		for what, n := range asked() {
			verb, resource, _ := strings.Cut(what, " ")
			switch {
			case verb == "watch":
				c.watches += n
			case verb == "get" || verb == "list":
				c.reads += n
			case resource == "events":
				c.events += n
			default:
				c.writes += n
			}
		}
		return c
	}
}

// or is the greater of both, one by one.
func (c cost) or(o cost) cost {
	return cost{max(c.vault, o.vault), max(c.reads, o.reads), max(c.writes, o.writes), max(c.events, o.events), max(c.watches, o.watches)}
}

// limit fails the scenario where more was spent than is promised.
func (c cost) limit(s *rig.Scenario, what string, most cost) {
	s.Helper()
	if c.or(most) != most {
		s.Errorf("%s took %d requests to the vault and Entra ID, and of the API server %s; promised are at most %d, and %s", what, c.vault, c.api(), most.vault, most.api())
	}
}

// api is the part that the API server had.
func (c cost) api() string {
	var parts []string
	for _, p := range []struct {
		n         int
		one, many string
	}{{c.reads, "read", "reads"}, {c.writes, "write", "writes"}, {c.events, "Event", "Events"}, {c.watches, "new watch", "new watches"}} {
		switch {
		case p.n == 1:
			parts = append(parts, "1 "+p.one)
		case p.n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.many))
		}
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// mounted are the first mounts that a driver has done: how many, and the time they took together.
type mounted struct {
	took  time.Duration
	count int
}

func mounting(driver *rig.Daemon) mounted {
	sum, count := driver.Sum("keymount_volume_operation_duration_seconds", "operation", "publish", "result", "mounted")
	return mounted{time.Duration(sum * float64(time.Second)), count}
}

// measured are the rows of the tables. Scenarios of a serial phase add to them one after the other.
type measured struct{ works, memories [][]string }

// work adds a row, and prints it.
func (m *measured) work(s *rig.Scenario, what, took, mount, upstream string, c cost) {
	s.Helper()
	if mount != "" {
		took += ", of it in the driver " + mount
	}
	s.Figure("%s: %s; %d requests to the vault and Entra ID, and of the API server %s", what, took, c.vault, c.api())
	m.works = append(m.works, []string{what, took, fmt.Sprint(c.vault), c.api(), upstream})
}

func (m *measured) memory(s *rig.Scenario, volumes int, u rig.Usage) {
	s.Helper()
	upstream := ""
	if volumes == 0 {
		upstream = "85 MiB resident in four processes"
	}
	s.Figure("memory of the driver's pod with %d volumes: working set %s, resident %s", volumes, mib(u.WorkingSet), mib(u.Resident))
	m.memories = append(m.memories, []string{fmt.Sprint(volumes), mib(u.WorkingSet), mib(u.Resident), upstream})
}

// write puts the tables into the block of a document, if one is asked for and everything was measured.
func (m *measured) write(t *testing.T) {
	document := os.Getenv(rig.DocumentEnv)
	if document == "" {
		return
	}
	if t.Failed() || len(m.works) == 0 {
		t.Errorf("%s is not written: not everything went well, or the figures were not asked for", document)
		return
	}
	text := strings.Join([]string{
		"Taken on " + benchdoc.Origin() + ", by `make e2e`, which fails if requests exceed what is promised; times gate nothing.\n" +
			"Two nodes, the control plane, the emulator and the tests share the machine.\n",
		fmt.Sprintf("The driver's chart with `builtinProviders: [azure]`, its own limits of CPU and memory, workload identity, and the emulator as above (%d, %d and %d ms).\n"+
			"A time is from the request for the pod to its being Running and Ready, the median of 5 where one pod is started; images are\n"+
			"there. Each volume of such a pod is the first of its class, vault and identity on the node. Kubelet looks at each pod every 2 s\n"+
			"here, and about once a minute by default: by so much a refresh can be later, upstream's too.\n",
			vaultLatency.Milliseconds(), tokenLatency.Milliseconds(), discoveryLatency.Milliseconds()),
		benchdoc.Table(append([][]string{{"work", "took", "requests to the vault and Entra ID", "requests to the API server", "upstream"}}, m.works...)),
		"Working set is what `kubectl top` shows of the driver's container, the files of volumes with it; resident is the process' own.\n",
		benchdoc.Table(append([][]string{{"volumes", "working set", "resident", "upstream"}}, m.memories...)),
	}, "\n")
	if err := benchdoc.Write(document, "make e2e", text); err != nil {
		t.Error(err)
	}
}

func mib(bytes int) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
