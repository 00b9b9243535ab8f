module kgents/cluster/tools/pause

go 1.26
