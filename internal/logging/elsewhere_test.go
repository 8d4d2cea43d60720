package logging_test

import (
	"context"
	"log/slog"

	"keymount/internal/logging"
)

// logElsewhere logs one line of each level, from another file than the tests do.
func logElsewhere(log *slog.Logger) { logLevels(log, "elsewhere") }

func logLevels(log *slog.Logger, from string) {
	for _, level := range []slog.Level{slog.LevelError, slog.LevelWarn, slog.LevelInfo, slog.LevelDebug, logging.LevelTrace} {
		log.Log(context.Background(), level, from+" "+level.String())
	}
}
