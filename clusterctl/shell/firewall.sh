# shellcheck shell=sh disable=SC2154
# The cluster's ports in the firewalls that are active on a machine. Runs after the prelude, and by itself at boot.

# A line 'tcp|udp PORT SOURCE,...' for each port, and 'forward pods NETWORK'.
rules=/etc/clusterctl/firewall
asserting=/etc/clusterctl/firewall.sh
firewall_unit=clusterctl-firewall.service
policies=/etc/firewalld/policies
ufw_rules_file=/etc/ufw/user.rules

# observe_firewall NAME: the firewalls that are active, and whether what was put into them is there still.
observe_firewall() {
	found=$(active_firewalls | paste -s -d ' ' -)
	listing=$(firewall_listing) force=no
	case $newline$listing in
		*"${newline}missing "*) ;;
		*) if [ -e "$state/firewall" ] && [ "$listing" = "$(cat "$state/firewall")" ]; then force=yes; fi ;;
	esac
	emit firewall "$1" "$found" "$force"
}

active_firewalls() {
	[ ! -L /run/systemd/units/invocation:firewalld.service ] || echo firewalld
	! grep -qs '^ENABLED=yes' /etc/ufw/ufw.conf || echo ufw
	[ -z "$(dropping_chains)" ] || echo nftables
}

# put_firewall: once its files are there. The unit asserts the rules after the ones of the operator are loaded.
put_firewall() {
	assert_firewall
	systemctl daemon-reload
	systemctl enable --quiet -- "$firewall_unit"
	systemctl restart -- "$firewall_unit"
	firewall_listing >"$state/firewall.new"
	mv -f -- "$state/firewall.new" "$state/firewall"
}

drop_firewall() {
	drop_rules
	systemctl disable --quiet --now -- "$firewall_unit" 2>/dev/null || :
	rm -f -- "/etc/systemd/system/$firewall_unit" "$asserting" "$rules" "$state/firewall"
	systemctl daemon-reload
}

drop_rules() {
	drop_nftables
	drop_firewalld
	: >"$work/none"
	drop_ufw "$work/none"
}

# firewalls_with_rules: where something of ours is, whether the firewall is active or not.
firewalls_with_rules() {
	[ -z "$(our_nft_chains)" ] || echo nftables
	for policy in "$policies"/clusterctl-*.xml; do [ ! -e "$policy" ] || echo firewalld; done | sort -u
	[ -z "$(ufw_present)" ] || echo ufw
}

assert_firewall() {
	for firewall in $(active_firewalls); do "assert_$firewall"; done
}

# revive_proxies: rules of an operator that begin with 'flush ruleset' take the tables of kube-proxy and flannel with them, which these
# would write again within the hour.
revive_proxies() {
	grep -qs '"nftables"' /var/lib/kube-proxy/config.yaml || return 0
	tables=$(nft list tables 2>/dev/null)
	for pair in kube-proxy=kube-proxy flanneld=flannel-ipv4; do
		case $tables in *"table ip ${pair#*=}"*) continue ;; esac
		if [ -L "/run/systemd/units/invocation:${pair%%=*}.service" ]; then systemctl --no-block restart -- "${pair%%=*}.service"; fi
	done
}

# firewall_listing: our rules as they are in force, in the firewall's own words; a line 'missing ...' where nothing leads to them.
firewall_listing() {
	for firewall in $(active_firewalls); do "list_$firewall"; done
}

# --- nftables: an accept in a table of our own would not keep another table from dropping, so that rules go into the chains that drop ---

# dropping_chains: 'FAMILY TABLE CHAIN HOOK' for each. iptables, firewalld and our own programs look after their tables themselves.
dropping_chains() {
	command -v nft >/dev/null 2>&1 || return 0
	nft list chains 2>/dev/null | awk '
		$1 == "table" {family = $2; table = $3}
		$1 == "chain" {chain = $2}
		table ~ /^(firewalld|kube-proxy|flannel-ipv[46]|cni_.*)$/ || (family " " table " " chain) ~ /^ip filter (INPUT|FORWARD)$/ {next}
		(family == "ip" || family == "inet") && /type filter hook (input|forward) .*policy drop;/ {print family, table, chain, $4}'
}

assert_nftables() {
	dropping_chains | while read -r family table chain hook; do
		{
			echo "add chain $family $table clusterctl_$hook"
			echo "flush chain $family $table clusterctl_$hook"
			nft_rules "$family $table clusterctl_$hook" "$hook"
			our_jumps "$family" "$table" "clusterctl_$hook"
			echo "insert rule $family $table $chain jump clusterctl_$hook comment \"clusterctl\""
		} | nft -f -
	done
}

nft_rules() {
	awk -v place="$1" -v hook="$2" '
		hook == "input" && $1 != "forward" {gsub(",", ", ", $3); print "add rule", place, "ip saddr {", $3, "}", $1, "dport", $2, "accept"}
		hook == "forward" && $1 == "forward" {print "add rule", place, "ip saddr", $3, "accept"; print "add rule", place, "ip daddr", $3, "accept"}' "$rules"
}

# our_jumps FAMILY TABLE OURS: commands for nft that delete the rules which lead to a chain of ours.
our_jumps() {
	nft -a list table "$1" "$2" | awk -v place="$1 $2" -v ours="$3" '
		$1 == "chain" {chain = $2}
		$1 == "jump" && $2 == ours && /# handle [0-9]+$/ {print "delete rule", place, chain, "handle", $NF}'
}

our_nft_chains() {
	command -v nft >/dev/null 2>&1 || return 0
	nft list chains 2>/dev/null | awk '$1 == "table" {place = $2 " " $3} $1 == "chain" && $2 ~ /^clusterctl_(input|forward)$/ {print place, $2}'
}

list_nftables() {
	dropping_chains | while read -r family table chain hook; do
		echo "$family $table $chain"
		nft list chain "$family" "$table" "$chain" | grep "jump clusterctl_$hook " || echo "missing jump"
		nft -s list chain "$family" "$table" "clusterctl_$hook" 2>/dev/null || :
	done
}

drop_nftables() {
	our_nft_chains | while read -r family table chain; do
		{
			our_jumps "$family" "$table" "$chain"
			echo "flush chain $family $table $chain"
			echo "delete chain $family $table $chain"
		} | nft -f -
	done
}

# --- firewalld: policies of our own, which are asked before its zones (firewalld 0.9 and later) ---

assert_firewalld() {
	changed=
	for policy in clusterctl-in clusterctl-pods; do
		text=$(policy_text "$policy")
		if [ "$text" != "$(cat "$policies/$policy.xml" 2>/dev/null)" ]; then
			mkdir -p "$policies"
			printf '%s\n' "$text" >"$policies/.$policy.new"
			mv -f -- "$policies/.$policy.new" "$policies/$policy.xml"
			changed=yes
		fi
	done
	if [ -n "$changed" ] || ! firewall-cmd --get-policies | grep -q clusterctl-in; then firewall-cmd --quiet --reload; fi
}

policy_text() {
	echo '<?xml version="1.0" encoding="utf-8"?>'
	echo '<policy priority="-100" target="CONTINUE">'
	echo '  <ingress-zone name="ANY"/>'
	if [ "$1" = clusterctl-in ]; then echo '  <egress-zone name="HOST"/>'; else echo '  <egress-zone name="ANY"/>'; fi
	awk -v policy="$1" '
		function accept(words) {print "  <rule family=\"ipv4\">" words "<accept/></rule>"}
		policy == "clusterctl-in" && $1 != "forward" {
			count = split($3, from, ",")
			for (i = 1; i <= count; i++) accept("<source address=\"" from[i] "\"/><port port=\"" $2 "\" protocol=\"" $1 "\"/>")
		}
		policy == "clusterctl-pods" && $1 == "forward" {
			accept("<source address=\"" $3 "\"/>")
			accept("<destination address=\"" $3 "\"/>")
		}' "$rules"
	echo '</policy>'
}

# Its files are read only when it is reloaded; where it uses nftables, the chains that it made of them are listed.
list_firewalld() {
	cat "$policies"/clusterctl-*.xml 2>/dev/null || echo "missing policies"
	nft list tables 2>/dev/null | grep -qx 'table inet firewalld' || return 0
	for chain in filter_IN_policy_clusterctl-in_allow filter_FWD_policy_clusterctl-pods_allow; do
		nft -s list chain inet firewalld "$chain" 2>/dev/null || echo "missing $chain"
	done
}

drop_firewalld() {
	set -- "$policies"/clusterctl-*.xml
	[ -e "$1" ] || return 0
	rm -f -- "$@"
	[ ! -L /run/systemd/units/invocation:firewalld.service ] || firewall-cmd --quiet --reload
}

# --- ufw: rules with a comment of ours ---

assert_ufw() {
	ufw_wanted >"$work/wanted"
	ufw_present >"$work/present"
	lines_not_in "$work/present" <"$work/wanted" | while read -r rule; do
		# shellcheck disable=SC2086 # words
		ufw $rule comment clusterctl
	done
	drop_ufw "$work/wanted"
}

# lines_not_in FILE: busybox's grep takes an empty file of patterns for one that matches everything.
lines_not_in() {
	awk -v known="$1" 'BEGIN {while ((getline line <known) > 0) seen[line]} !($0 in seen)'
}

# drop_ufw KEPT: takes away those of ours that are not lines of a file.
drop_ufw() {
	ufw_present | lines_not_in "$1" | while read -r rule; do
		routed=
		[ "$rule" = "${rule#route }" ] || routed=route
		# shellcheck disable=SC2086 # words
		ufw $routed delete ${rule#route }
	done
}

# ufw_wanted: a rule of ufw's a line, in the words of its command; all ports of a machine in one.
ufw_wanted() {
	awk '
		$1 == "forward" {print "route allow from " $3 " to any"; print "route allow from any to " $3; next}
		{
			count = split($3, from, ",")
			for (i = 1; i <= count; i++) {
				key = "allow proto " $1 " from " from[i] " to any port "
				if (!(key in ports)) order[++last] = key
				ports[key] = ports[key] (key in ports && ports[key] != "" ? "," : "") $2
			}
		}
		END {for (i = 1; i <= last; i++) print order[i] ports[order[i]]}' "$rules"
}

# ufw_present: ours in ufw's own file, in the same words; it keeps comments in hexadecimal.
ufw_present() {
	[ -r "$ufw_rules_file" ] || return 0
	awk '
		function named(address) {return address == "0.0.0.0/0" ? "any" : address}
		$1 == "###" && $2 == "tuple" && $NF == "comment=636c757374657263746c" {
			words = $4 == "route:allow" ? "route allow" : $4
			if ($5 != "any") words = words " proto " $5
			words = words " from " named($9) " to " named($7)
			print $6 == "any" ? words : words " port " $6
		}' "$ufw_rules_file"
}

list_ufw() {
	ufw_present | sort
}
