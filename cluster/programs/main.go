// Every program of a single-node Kubernetes in one binary, so that their common code is linked once.
// The name it is called by selects the program, else the first argument does.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	_ "time/tzdata"

	containerd "github.com/containerd/containerd/v2/cmd/containerd/command"
	ctr "github.com/containerd/containerd/v2/cmd/ctr/app"
	"go.etcd.io/etcd/server/v3/etcdmain"
	helm "helm.sh/helm/v4/pkg/cmd"
	helmkube "helm.sh/helm/v4/pkg/kube"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// programs holds what each name starts. An error is printed by `main`; a program that exits by itself never returns.
var programs = map[string]func(context.Context) error{
	"kube-apiserver": func(context.Context) error { os.Exit(cli.Run(apiserver.NewAPIServerCommand())); return nil },
	"kube-controller-manager": func(context.Context) error {
		os.Exit(cli.Run(controllermanager.NewControllerManagerCommand()))
		return nil
	},
	"kube-scheduler": func(context.Context) error { os.Exit(cli.Run(scheduler.NewSchedulerCommand())); return nil },
	"kubelet":        func(ctx context.Context) error { os.Exit(cli.Run(kubelet.NewKubeletCommand(ctx))); return nil },
	"kube-proxy":     func(context.Context) error { os.Exit(cli.Run(proxy.NewProxyCommand())); return nil },
	"kubectl":        runKubectl,
	"etcd":           func(context.Context) error { etcdmain.Main(os.Args); return nil },
	"containerd":     func(ctx context.Context) error { return runApp(ctx, containerd.App().Run) },
	"ctr":            func(ctx context.Context) error { return runApp(ctx, ctr.New().Run) },
	"helm":           runHelm,
}

// runApp starts a program of containerd: releases before 2.4 have a library whose programs take no context.
func runApp(ctx context.Context, run any) error {
	switch run := run.(type) {
	case func(context.Context, []string) error:
		return run(ctx, os.Args)
	case func([]string) error:
		return run(os.Args)
	default:
		return fmt.Errorf("a program that starts in no known way: %T", run)
	}
}

func runKubectl(context.Context) error {
	logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
	return nil
}

func runHelm(context.Context) error {
	helmkube.ManagedFieldsManager = "helm"
	command, err := helm.NewRootCmd(os.Stdout, os.Args[1:], helm.SetupLogging)
	if err != nil {
		return err
	}
	return command.Execute()
}

func main() {
	name := filepath.Base(os.Args[0])
	if _, known := programs[name]; !known && len(os.Args) > 1 {
		os.Args = os.Args[1:]
		name = os.Args[0]
	}
	program, known := programs[name]
	if !known {
		fmt.Fprintf(os.Stderr, "unknown program %q\n", name)
		os.Exit(2)
	}
	if err := program(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}
