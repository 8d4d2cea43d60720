package volume

// DefaultSize and DefaultInodes are the bounds of a tmpfs for which none are given.
const (
	DefaultSize   = 64 << 20 // bytes
	DefaultInodes = 32 << 10 // two generations of MaxEntries, and their links
)

// Tmpfs makes volumes of tmpfs mounts, by system calls. Linux and root only; elsewhere its methods return errors.ErrUnsupported.
//
// A mount has mode 0755, nosuid and nodev, and noswap where the kernel has it, so that contents never reach a disk.
type Tmpfs struct {
	// Size bounds the contents, in bytes; a change holds two generations for a moment. 0 means DefaultSize.
	Size int64
	// Inodes bounds the number of files, folders and links. 0 means DefaultInodes.
	Inodes int64
	// NoExec refuses to run programs from the volume.
	NoExec bool
}
