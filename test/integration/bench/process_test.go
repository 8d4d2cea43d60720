//go:build integration && linux

package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"keymount/internal/benchdoc"
	"keymount/internal/emulator"
)

// total is how many requests there were, watches aside.
func total(asked map[string]int) (n, watches int) {
	for what, count := range asked {
		if strings.HasPrefix(what, "watch ") {
			watches += count
		} else {
			n += count
		}
	}
	return n, watches
}

// firstMounts counts what one mount asks of the API server: the first of its class, and another.
func firstMounts(r *report, e *environment) {
	r.Helper()
	p := e.start(r.B, "first", "1h")
	defer p.end()
	took := p.publish(1)
	p.driver.Await("the class to be watched", func(context.Context) error {
		if _, watches := total(p.asked()); watches == 0 {
			return fmt.Errorf("there were %v", p.asked())
		}
		return nil
	})
	n, watches := total(p.asked())
	r.request("first mount of the first volume of a class, to the API server", n, 2, ms(took, 50), "1, and a watch of every class of the cluster")
	r.request("watches for that class", watches, 1, "", "")
	for range 20 { // the watch takes a moment to say what it has
		p.reset()
		took = p.publish(1)
		if n, watches = total(p.asked()); n+watches <= 1 {
			break
		}
	}
	r.request("first mount of another volume of the class, to the API server", n+watches, 1, ms(took, 50), "1")
	p.reset()
	p.republish()
	n, watches = total(p.asked())
	r.request("republish with nothing due, to the API server", n+watches, 0, "", "2")
}

// together is a node that starts all its pods at once.
func together(r *report, e *environment) {
	r.Helper()
	const pods = 200
	p := e.start(r.B, "together", "1h")
	defer p.end()
	start, before := time.Now(), p.cpu()
	took := p.publish(pods)
	wall, used := time.Since(start), p.cpu()-before
	n, _ := total(p.asked())
	// A pod whose look-up falls between the first read and the watch's first word reads the class too.
	r.request(fmt.Sprintf("%d pods start at once, to the API server", pods), n, 2*pods,
		fmt.Sprintf("%s in all; p50 %s, p99 %s; CPU %s each", seconds(wall), ms(took, 50), ms(took, 99), benchdoc.Milliseconds(used/pods)), "200")
	r.request(fmt.Sprintf("%d pods start at once, to Key Vault and Entra ID", pods), p.emu.Requests().Total(), firstReads(wall), "", "4,800")
}

// firstReads is the most that mounts of one class by one identity may ask within a time: every secret, once per window in
// which reads are shared, and a token with the discovery document.
func firstReads(within time.Duration) int { return secrets + 2 + secrets*int(within/shareFor) }

// refreshes counts what a round of republish costs when all volumes are due.
func refreshes(r *report, e *environment) {
	r.Helper()
	const pods = 100
	p := e.start(r.B, "refreshed", "1s")
	defer p.end()
	start := time.Now()
	p.publish(pods)
	wall := time.Since(start)
	r.request(fmt.Sprintf("%d pods start at once, to Key Vault and Entra ID", pods), p.emu.Requests().Total(), firstReads(wall), seconds(wall)+" in all", "2,400")

	// Within the window the limit is what it would be after it: how long the mounts took is the machine's.
	p.refresh(r, "refresh of the 100, unchanged, reads of the first mounts still shared", time.Second)
	p.none(r, "that refresh")
	p.refresh(r, "refresh of the 100, unchanged", shareFor+time.Second)
	if p.emu.Requests().Total(emulator.GroupVault) == 0 {
		r.Error("nothing was read, so nothing was due")
	}
	p.none(r, "that refresh")

	p.emu.PutSecret(vaultName, "secret-0", "another value")
	p.refresh(r, "refresh of the 100, one secret changed", shareFor+time.Second)
	text, err := os.ReadFile(p.volumes[pods-1].TargetPath + "/secret-0")
	if err != nil || string(text) != "another value" {
		r.Errorf("after the refresh the file holds %q, %v", text, err)
	}
	const events = "create events"
	p.driver.Await("an Event on each pod", func(context.Context) error {
		if n := p.asked()[events]; n < pods {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	n, watches := total(p.asked())
	r.request("that refresh, status written to the API server", n+watches-p.asked()[events], pods, "", "200")
	r.request("that refresh, Events on the pods, afterwards", p.asked()[events], pods, "", "0")
}

// refresh waits and has all volumes republished, which are due then. Reads that are too old to be shared count anew.
func (p *process) refresh(r *report, what string, wait time.Duration) {
	r.Helper()
	elapse(r, wait)
	p.reset()
	start := time.Now()
	p.republish()
	wall := time.Since(start)
	r.request(what+", to Key Vault and Entra ID", p.emu.Requests().Total(), secrets+secrets*int(wall/shareFor), seconds(wall)+" in all", "2,400")
}

// none says that the API server was asked nothing.
func (p *process) none(r *report, what string) {
	r.Helper()
	n, watches := total(p.asked())
	r.request(what+", to the API server", n+watches, 0, "", "200")
}

// elapse waits until the driver's clock is so much further.
func elapse(r *report, d time.Duration) {
	timer := time.NewTimer(d + 50*time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
}

// maxIdle is a ceiling for a driver with no volume, in KiB. It is generous: it is there for what links a large library.
const maxIdle = 64 << 10

// residents measures memory and CPU with more and more volumes.
func residents(r *report, e *environment) {
	r.Helper()
	p := e.start(r.B, "resident", "1h")
	defer p.end()
	for i, volumes := range []int{0, 100, of(500, 100)} {
		if i > 0 && volumes == len(p.volumes) {
			continue
		}
		for len(p.volumes) < volumes {
			p.publish(min(100, volumes-len(p.volumes)))
		}
		rounds := of(20, 2)
		before := p.cpu()
		for range rounds {
			p.republish()
		}
		used, idle := p.cpu()-before, p.cpu()
		pause := time.Duration(of(5000, 0)) * time.Millisecond // the runtime gives memory back bit by bit
		elapse(r, pause)
		resident, anonymous := p.memory()
		row := []string{fmt.Sprint(volumes), mib(resident), mib(anonymous), "", "", "", ""}
		if volumes == 0 {
			r.most("KiB of resident memory of an idle driver", resident, maxIdle)
			if pause > 0 {
				row[4] = fmt.Sprintf("%.2f %%", 100*float64(p.cpu()-idle)/float64(pause))
			}
			row[5], row[6] = "40 MiB", "85 MiB in four processes"
		} else {
			each := used / time.Duration(rounds*volumes)
			row[3] = fmt.Sprintf("%d us", each.Microseconds())
			row[4] = fmt.Sprintf("%.2f %%", 100*each.Seconds()*float64(volumes)/75)
		}
		r.processes = append(r.processes, row)
	}
}

// memory is what of the process is resident, and of that what is no file's, in KiB.
func (p *process) memory() (resident, anonymous int) {
	p.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.driver.PID()))
	if err != nil {
		p.Fatal(err)
	}
	values := map[string]*int{"VmRSS:": &resident, "RssAnon:": &anonymous}
	for line := range bytes.Lines(text) {
		if fields := strings.Fields(string(line)); len(fields) == 3 && values[fields[0]] != nil {
			if *values[fields[0]], err = strconv.Atoi(fields[1]); err != nil {
				p.Fatal(err)
			}
		}
	}
	return resident, anonymous
}

// cpu is the time that the process has used, of the user's and the system's.
func (p *process) cpu() time.Duration {
	p.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.driver.PID()))
	if err != nil {
		p.Fatal(err)
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Go runs
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, uerr := strconv.Atoi(fields[11]) // proc_pid_stat(5): field 14, utime, and 15, stime; the first here is field 3
	system, serr := strconv.Atoi(fields[12])
	if uerr != nil || serr != nil {
		p.Fatalf("reading /proc/PID/stat: %q", fields)
	}
	return time.Duration(user+system) * tick
}

func ms(times []time.Duration, p int) string {
	return benchdoc.Milliseconds(benchdoc.Percentile(times, p))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func mib(kib int) string { return fmt.Sprintf("%.1f MiB", float64(kib)/1024) }
