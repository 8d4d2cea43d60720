package volume_test

import (
	"strings"
	"testing"

	"keymount/internal/volume"
)

func TestParseMounts(t *testing.T) {
	const table = `22 28 0:20 / /sys rw,nosuid - sysfs sysfs rw
62 42 0:38 / /with\040blank\011tab\012line\134slash rw,nosuid,nodev,relatime shared:1 master:2 - tmpfs tmpfs rw,size=65536k
63 62 0:39 /sub /short\04 rw - ext4 /dev/x - y rw
`
	got, err := volume.ParseMounts(strings.NewReader(table))
	must(t, err)
	want := []string{"22 /sys sysfs", "62 /with blank\ttab\nline\\slash tmpfs", `63 /short\04 ext4`}
	if len(got) != len(want) {
		t.Fatalf("%d mounts, want %d", len(got), len(want))
	}
	for i, m := range got {
		if s := strings.Join([]string{itoa(m.ID), m.Point, m.Type}, " "); s != want[i] {
			t.Errorf("mount %d is %q, want %q", i, s, want[i])
		}
	}
	for name, bad := range map[string]string{
		"no separator": "22 28 0:20 / /sys rw,nosuid sysfs sysfs rw\n",
		"too short":    "22 28 0:20 / - sysfs sysfs rw\n",
		"no number":    "x 28 0:20 / /sys rw - sysfs sysfs rw\n",
		"endless line": "22 28 0:20 / /" + strings.Repeat("x", 2<<20) + " rw - sysfs sysfs rw\n",
	} {
		if _, err := volume.ParseMounts(strings.NewReader(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
