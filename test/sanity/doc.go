// Package sanity runs the public CSI suite (kubernetes-csi/csi-test) against keymount-driver as a process on a real API
// server.
//
// The suite is made for drivers with a controller, and asks for less than kubelet sends; Keymount has no controller, and
// refuses what kubelet would never ask. The controller, and what kubelet adds to a request, are therefore here, on the client's
// side of the socket, and the product has neither. What the suite does not look at is looked at here too: after each call
// the mount table and the files. The package is test code in a module of its own, so that the suite's libraries stay out of
// the product's; nothing imports it.
package sanity
