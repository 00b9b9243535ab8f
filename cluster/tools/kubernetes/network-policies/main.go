// What enforces network policies between the pods of the test cluster: the controller of Kubernetes' SIG Network, which is
// asked for each new connection through a queue of the kernel (cluster/addons.py fills it). Its own main runs in a pod, and
// fills the queue by rules of nftables that not every kernel has; that it can't is logged, and does no harm.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

func run(ctx context.Context, kubeconfig string, node string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	known := informers.NewSharedInformerFactory(client, 0)
	controller, err := networkpolicy.NewController(
		client,
		known.Networking().V1().NetworkPolicies(),
		known.Core().V1().Namespaces(),
		known.Core().V1().Pods(),
		nil, nil, nil, nil, // what is for the policies of administrators
		networkpolicy.Config{NodeName: node},
	)
	if err != nil {
		return err
	}
	known.Start(ctx.Done())
	return controller.Run(ctx)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
