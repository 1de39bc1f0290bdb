#!/bin/sh
echo '{"_meta": {"hostvars": {"n1": {"ansible_host": "192.0.2.1"}}}, "control_plane": {"hosts": ["n1"], "vars": {"x": 1}}}'
