//go:build tools

// Packages that are built as programs of their own; named here so that go.mod keeps their versions.
package main

import (
	_ "github.com/containerd/containerd/cmd/containerd"
	_ "github.com/containerd/containerd/cmd/containerd-shim-runc-v2"
	_ "github.com/containerd/containerd/cmd/ctr"
)
