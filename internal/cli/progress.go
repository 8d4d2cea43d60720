package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// tellAfter is when a wait is long enough to say, where there is no terminal, that it goes on and how long it may take.
const tellAfter = 10 * time.Second

// showProgress says on a terminal what is going on and for how long, on one line that it clears at the end; elsewhere it says
// so once, in a line of its own, if it takes longer than usual. limit is how long it may take. The function that it returns must
// be called before anything else is printed.
func showProgress(w io.Writer, doing string, limit time.Duration) (stop func()) {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return tick(w, doing, limit)
	}
	return tellOnce(w, doing, limit)
}

func tick(w io.Writer, doing string, limit time.Duration) (stop func()) {
	const clearLine = "\r\x1b[K"
	quit := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		started := time.Now()
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				fmt.Fprint(w, clearLine)
				return
			case <-ticker.C:
				most := ""
				if time.Since(started) >= tellAfter {
					most = fmt.Sprintf(" of at most %.0f", limit.Seconds())
				}
				fmt.Fprintf(w, "%s%s (%.0f s%s)", clearLine, printable(doing), time.Since(started).Seconds(), most)
			}
		}
	})
	return sync.OnceFunc(func() { close(quit); done.Wait() })
}

func tellOnce(w io.Writer, doing string, limit time.Duration) (stop func()) {
	quit := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		timer := time.NewTimer(tellAfter)
		defer timer.Stop()
		select {
		case <-quit:
		case <-timer.C:
			fmt.Fprintf(w, "keymount: still %s, for %.0f s; it may take up to %.0f s\n", printable(doing), tellAfter.Seconds(), limit.Seconds())
		}
	})
	return sync.OnceFunc(func() { close(quit); done.Wait() })
}
