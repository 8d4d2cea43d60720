package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// showProgress says on a terminal what is going on and for how long, on one line that it clears at the end. Elsewhere it
// prints nothing. The function that it returns must be called before anything else is printed.
func showProgress(w io.Writer, doing string) (stop func()) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}
	}
	return tick(w, doing)
}

func tick(w io.Writer, doing string) (stop func()) {
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
				fmt.Fprintf(w, "%s%s (%.0f s)", clearLine, printable(doing), time.Since(started).Seconds())
			}
		}
	})
	return sync.OnceFunc(func() { close(quit); done.Wait() })
}
