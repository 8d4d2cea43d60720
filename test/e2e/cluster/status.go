//go:build integration && linux

package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"keymount/test/e2e/cluster/control"
)

func statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show machines and components",
		Long: `status shows the machines, their components, and how often these ended without being told to. Process numbers of machines are
this machine's, those of components the machines' own.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := dial(c)
			if err != nil {
				return err
			}
			defer client.Close()
			status, err := client.Status(c.Context())
			if err != nil {
				return err
			}
			return printStatus(c.OutOrStdout(), status)
		},
	}
}

func printStatus(out io.Writer, s control.Status) error {
	state := "starting"
	if s.Ready {
		state = "ready"
	}
	fmt.Fprintf(out, "cluster %s: %s, API server https://%s, held by process %d, swept by %d\n\n", s.Dir, state, s.APIServer, s.Keeper, s.Sweeper)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MACHINE\tADDRESS\tCOMPONENT\tPID\tSTATE\tRESTARTS\tLAST END")
	for _, m := range s.Machines {
		fmt.Fprintf(table, "%s\t%s\t\t%d\t%s\t%d\t\n", m.Name, m.Address, m.PID, machineState(m), max(0, m.Boots-1))
		for _, c := range m.Components {
			fmt.Fprintf(table, "\t\t%s\t%d\t%s\t%d\t%s\n", c.Name, c.PID, componentState(c), c.Restarts, c.Exit)
		}
	}
	return table.Flush()
}

func machineState(m control.Machine) string {
	switch {
	case m.PID == 0:
		return "ended"
	case m.Partitioned:
		return "partitioned"
	}
	return "up"
}

func componentState(c control.Component) string {
	switch {
	case c.Stopped:
		return "stopped"
	case c.Paused:
		return "paused"
	case c.PID == 0:
		return "starting"
	}
	return "running"
}
