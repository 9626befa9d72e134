// A server of the gRPC health protocol, for probes: `health ADDRESS` serves, `health --fail` makes a running one say
// that its service "alive" does not serve.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	if os.Args[1] == "--fail" {
		// The server is the container's first process.
		if err := syscall.Kill(1, syscall.SIGUSR1); err != nil {
			log.Fatal(err)
		}
		return
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	state := health.NewServer()
	state.SetServingStatus("alive", grpc_health_v1.HealthCheckResponse_SERVING)
	fail := make(chan os.Signal, 1)
	signal.Notify(fail, syscall.SIGUSR1)
	go func() {
		<-fail
		state.SetServingStatus("alive", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	}()
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, state)
	go func() {
		<-ended.Done()
		server.Stop()
	}()
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
