package main

import (
	"reflect"
	"unsafe"

	"k8s.io/kubernetes/pkg/controller/podautoscaler"
)

// tolerance is the same share up and down. Only the controller itself can set it otherwise.
func tolerance(share float64) podautoscaler.Tolerances {
	var found podautoscaler.Tolerances
	value := reflect.ValueOf(&found).Elem()
	for number := range value.NumField() {
		*(*float64)(unsafe.Pointer(value.Field(number).UnsafeAddr())) = share
	}
	return found
}
