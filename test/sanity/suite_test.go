//go:build integration && linux

package sanity

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
	"google.golang.org/grpc"
)

// taskEnv holds the task of a process that runs the suite once.
const taskEnv = "KEYMOUNT_SANITY_TASK"

// suiteBound ends a suite that hangs; it takes a second.
const suiteBound = 2 * time.Minute

// A task is what one run of the suite needs to know.
type task struct {
	Endpoint string            // path of the driver's socket
	Root     string            // the node's folder: nothing else is to be mounted below
	Folder   string            // where the suite has its targets; made and removed by it
	Class    string            // SecretProviderClass
	Files    map[string]string // what the volume holds then
	Volumes  []volume          // those that CreateVolume hands out, after the first, which is for requests without a volume
	Report   string            // file that takes the report
}

// A report is what came of it.
type report struct {
	Specs    []spec
	Checks   checks
	Failures []string // of the checks
}

// A spec is one spec of the suite, of whatever service.
type spec struct {
	Service string // the outermost container
	Name    string
	State   string // "passed", "skipped", ...
	Why     string // why it was skipped or failed; "" if it was not among those to run
}

// failing is the suite's testing.T.
type failing struct{ failed bool }

func (f *failing) Fail() { f.failed = true }

// runSuite runs the suite once and returns the exit code. Whether the right specs ran is for the caller to judge.
func runSuite(text string) int {
	var t task
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		fmt.Fprintln(os.Stderr, "reading the task of the suite:", err)
		return 1
	}
	c := newClient(t)
	config := sanity.NewTestConfig()
	config.Address = "unix://" + t.Endpoint
	config.DialOptions = append(config.DialOptions, grpc.WithChainUnaryInterceptor(c.intercept))
	config.TargetPath = t.Folder
	config.StagingPath = "" // nothing is staged

	suite, reporter := ginkgo.GinkgoConfiguration()
	suite.FocusStrings = []string{"^csi-test (Identity|Node) Service "}
	suite.Timeout = suiteBound
	suite.RandomSeed = 1 // the order of services depends on it
	reporter.NoColor = true
	var specs []spec
	ginkgo.ReportAfterSuite("report", func(r ginkgo.Report) { specs = list(r) })
	gomega.RegisterFailHandler(ginkgo.Fail)
	connections := sanity.GinkgoTest(&config)
	outcome := &failing{}
	ginkgo.RunSpecs(outcome, "csi-test", suite, reporter)
	connections.Finalize()

	done, failures := c.result()
	answer, err := json.Marshal(report{Specs: specs, Checks: done, Failures: failures})
	if err == nil {
		err = os.WriteFile(t.Report, answer, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "writing the report of the suite:", err)
	}
	if err != nil || outcome.failed || len(failures) > 0 {
		return 1
	}
	return 0
}

// list takes the specs out of Ginkgo's report, which also has nodes that are not specs.
func list(r ginkgo.Report) []spec {
	var specs []spec
	for _, s := range r.SpecReports {
		if s.LeafNodeType != types.NodeTypeIt {
			continue
		}
		specs = append(specs, spec{Service: s.ContainerHierarchyTexts[0], Name: s.FullText(), State: s.State.String(), Why: s.FailureMessage()})
	}
	return specs
}
