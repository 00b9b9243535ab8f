// Oracle answers, with the code of Kubernetes' own autoscaler, how many replicas a metric asks for. It reads a case a
// line (JSON) and writes the number, or "null" where the autoscaler could not tell.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"

	autoscaling "k8s.io/api/autoscaling/v2"
)

type pod struct {
	Name       string
	Request    int64
	Pending    bool
	Leaving    bool
	Ready      bool
	Started    *float64
	ReadySince float64
	Value      *int64
	Sampled    float64
	Window     float64
}

type question struct {
	Metric  string
	Target  int64
	Current int32
	Pods    []pod
}

// samples is a metrics client that knows the samples of one question.
type samples metrics.PodMetricsInfo

func (s samples) copied() metrics.PodMetricsInfo {
	found := metrics.PodMetricsInfo{}
	for name, metric := range s {
		found[name] = metric
	}
	return found
}

func (s samples) GetResourceMetric(context.Context, v1.ResourceName, string, labels.Selector, string) (metrics.PodMetricsInfo, time.Time, error) {
	return s.copied(), time.Now(), nil
}

func (s samples) GetRawMetric(string, string, labels.Selector, labels.Selector) (metrics.PodMetricsInfo, time.Time, error) {
	return s.copied(), time.Now(), nil
}

func (s samples) GetObjectMetric(string, string, *autoscaling.CrossVersionObjectReference, labels.Selector) (int64, time.Time, error) {
	return 0, time.Time{}, fmt.Errorf("not asked for")
}

func (s samples) GetExternalMetric(string, string, labels.Selector) ([]int64, time.Time, error) {
	return nil, time.Time{}, fmt.Errorf("not asked for")
}

func answer(asked question) (int32, error) {
	now := time.Now()
	// Moments in a question are seconds before now.
	ago := func(seconds float64) metav1.Time {
		return metav1.NewTime(now.Add(-time.Duration(seconds * float64(time.Second))))
	}
	found := samples{}
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for _, each := range asked.Pods {
		object := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: each.Name, Namespace: "test"}}
		object.Spec.Containers = []v1.Container{{Name: "only", Resources: v1.ResourceRequirements{
			Requests: v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(each.Request, resource.DecimalSI)},
		}}}
		object.Status.Phase = v1.PodRunning
		if each.Pending {
			object.Status.Phase = v1.PodPending
		}
		if each.Leaving {
			object.DeletionTimestamp = &metav1.Time{Time: now}
		}
		if each.Started != nil {
			started := ago(*each.Started)
			object.Status.StartTime = &started
		}
		ready := v1.ConditionFalse
		if each.Ready {
			ready = v1.ConditionTrue
		}
		object.Status.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: ready, LastTransitionTime: ago(each.ReadySince)}}
		if err := indexer.Add(object); err != nil {
			return 0, err
		}
		if each.Value != nil {
			window := time.Duration(each.Window * float64(time.Second))
			found[each.Name] = metrics.PodMetric{Value: *each.Value, Timestamp: ago(each.Sampled).Time, Window: window}
		}
	}
	calculator := podautoscaler.NewReplicaCalculator(found, corelisters.NewPodLister(indexer), 5*time.Minute, 30*time.Second)
	tolerances := tolerance(0.1)
	if asked.Metric == "cpu" {
		replicas, _, _, _, err := calculator.GetResourceReplicas(context.Background(), asked.Current, int32(asked.Target), v1.ResourceCPU, tolerances, "test", labels.Everything(), "")
		return replicas, err
	}
	replicas, _, _, err := calculator.GetMetricReplicas(asked.Current, asked.Target, asked.Metric, tolerances, "test", labels.Everything(), labels.Everything())
	return replicas, err
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		replicas, err := answer(asked)
		if err != nil {
			fmt.Println("null")
			continue
		}
		fmt.Println(replicas)
	}
}
