set -e
mkdir -p ~/.cache/kgents/cluster-dev/bin
cd /tmp/k8s/cluster/tools/kubernetes
v=v1.34.4; p=k8s.io/component-base/version
for t in kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubectl; do
 time CGO_ENABLED=0 nice -n 19 go build -p 2 -trimpath -o ~/.cache/kgents/cluster-dev/bin/$t -ldflags "-s -w -X $p.gitVersion=$v -X $p.gitMajor=1 -X $p.gitMinor=34 -X $p.gitTreeState=clean -X $p.gitCommit=0" k8s.io/kubernetes/cmd/$t
done
cd ../coredns; time CGO_ENABLED=0 nice -n 19 go build -trimpath -ldflags "-s -w" -o ~/.cache/kgents/cluster-dev/bin/coredns github.com/coredns/coredns
cd ../metrics-server; time CGO_ENABLED=0 nice -n 19 go build -trimpath -ldflags "-s -w" -o ~/.cache/kgents/cluster-dev/bin/metrics-server sigs.k8s.io/metrics-server/cmd/metrics-server
