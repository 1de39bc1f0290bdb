// Package common stands in for a cloud's SDK that flannel imports: its backends vxlan and host-gw never call it.
package common

func StringPtr(value string) *string { return &value }

func BoolPtr(value bool) *bool { return &value }

func StringPtrs(values []string) []*string {
	found := make([]*string, len(values))
	for i := range values {
		found[i] = &values[i]
	}
	return found
}
