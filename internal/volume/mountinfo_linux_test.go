package volume_test

import (
	"slices"
	"strings"
	"testing"

	"keymount/internal/volume"
)

func TestParseMounts(t *testing.T) {
	const table = `22 28 0:20 / /sys rw,nosuid - sysfs sysfs rw
62 42 0:38 / /with\040blank\011tab\012line\134slash rw,nosuid,nodev,relatime shared:1 master:2 - tmpfs tmpfs rw,size=65536k
63 62 0:39 /sub /short\04 rw - ext4 /dev/x - y rw
64 62 0:40 /sub x /another  blank rw shared:1 - tmpfs tmpfs rw
`
	got, err := volume.ParseMounts(strings.NewReader(table))
	must(t, err)
	want := []string{"/sys", "/with blank\ttab\nline\\slash", `/short\04`, "/another\u00a0\u2003blank"}
	if !slices.Equal(got, want) {
		t.Errorf("mount points are %q, want %q", got, want)
	}
	for name, bad := range map[string]string{
		"no separator": "22 28 0:20 / /sys rw,nosuid sysfs sysfs rw\n",
		"too short":    "22 28 0:20 / - sysfs sysfs rw\n",
		"endless line": "22 28 0:20 / /" + strings.Repeat("x", 2<<20) + " rw - sysfs sysfs rw\n",
	} {
		if _, err := volume.ParseMounts(strings.NewReader(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
