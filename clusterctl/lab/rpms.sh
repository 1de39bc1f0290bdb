#!/bin/sh
# A hook of mmdebstrap for the base with dnf: turns the .deb files of $LAB_REPOSITORY into RPMs, in the repositories 'rpm' and 'rpm-updates'
# (later releases of some), and takes apt and dpkg away. Argument: the tree.
set -eu
work=$1/root/rpms
mkdir "$work"
mv "$LAB_REPOSITORY"/*.deb "$work"
chroot "$1" sh -eu -s <<'END'
cd /root/rpms

# Debian keeps a database for each user, as its own packages are dpkg's.
mkdir -p /etc/rpm /var/lib/rpm
echo '%_dbpath /var/lib/rpm' >/etc/rpm/macros.lab
rpm --initdb
# Fedora's family has these plugins, which keep copies of packages and print more, in packages of their own.
rm /usr/lib/python3/dist-packages/dnf-plugins/local.py /usr/lib/python3/dist-packages/dnf-plugins/show_leaves.py

# field FILE NAME: a field of a .deb.
field() {
	dpkg-deb --field "$1" "$2"
}

# The names of Fedora's family.
rename() {
	sed 's/^conntrack$/conntrack-tools/; s/^iptables$/iptables-nft/'
}

# requirements DEB: the packages that it depends on, of those that the base lacks, with commas in between.
requirements() {
	field "$1" Depends | tr ',' '\n' | sed 's/|.*//; s/(.*//; s/:.*//; s/ //g' | while read -r name; do
		for found in "$name"_*.deb; do
			[ ! -e "$found" ] || echo "$name" | rename
		done
	done | paste -s -d , -
}

# listed ROOT: the entries of a package for its section %files; folders that the base has are not the package's.
listed() {
	find "$1" -mindepth 1 -printf '%y /%P\n' | while read -r kind path; do
		case $kind$path in
		d*) [ -d "$path" ] || echo "%dir $path" ;;
		f/etc/*) echo "%config(noreplace) $path" ;;
		*) echo "$path" ;;
		esac
	done
}

# build NAME VERSION RELEASE REPOSITORY [LINE]...: a package of what is in root/NAME; lines are added to its header.
build() {
	name=$1 version=$2 release=$3 repository=$4
	shift 4
	mkdir -p "root/$name" "$repository"
	listed "root/$name" >files
	{
		printf '%s\n' '%define debug_package %{nil}' '%define __os_install_post %{nil}' '%define _build_id_links none' \
			'%define _binary_payload w1.gzdio' '%define _buildhost lab' "Name: $name" "Version: $version" "Release: $release" "Summary: $name for a lab" \
			'License: as in Debian' 'AutoReqProv: no' "$@" '%description' "$name for a lab" '%install' \
			"cp -a $PWD/root/$name/. %{buildroot}/" "%files -f $PWD/files"
		if [ "$name" = haproxy ]; then
			printf '%s\n' '%pre' 'getent group haproxy >/dev/null || groupadd -r haproxy' \
				'getent passwd haproxy >/dev/null || useradd -r -g haproxy -d /var/lib/haproxy -M -s /usr/sbin/nologin haproxy'
		fi
	} >spec
	rpmbuild --quiet -bb --define "_topdir $PWD/build" --define "_rpmdir $PWD/$repository" spec </dev/null
}

for deb in *.deb; do
	name=$(field "$deb" Package | rename)
	root=root/$name
	mkdir -p "$root/usr"
	dpkg-deb -x "$deb" "$root"
	for folder in bin lib sbin; do
		if [ -d "$root/$folder" ]; then
			cp -a "$root/$folder" "$root/usr"
			rm -rf "${root:?}/$folder"
		fi
	done
	rm -rf "$root/usr/share/doc" "$root/usr/share/lintian" "$root/usr/share/locale" "$root/usr/share/man"
	provided=$(field "$deb" Package)
	version=$(field "$deb" Version | sed 's/^[0-9]*://; s/-.*//')
	if [ "$name" = iptables-nft ]; then
		# What Debian's script does with update-alternatives.
		for program in iptables ip6tables; do
			for action in '' -save -restore; do ln -s "$program-nft$action" "$root/usr/sbin/$program$action"; done
		done
	fi
	required=$(requirements "$deb")
	build "$name" "$version" 1 rpm "Provides: $provided = $version" ${required:+"Requires: $required"}
	[ "$name" != zstd ] || build "$name" "$version" 2 rpm-updates
done
for name in cri-tools linux-firmware; do
	mkdir -p "root/$name/etc"
	echo mine >"root/$name/etc/$name.conf"
	build "$name" 1.0 1 rpm "Provides: ${name#linux-}"
	echo later >"root/$name/etc/$name.conf"
	build "$name" 99.0 1 rpm-updates "Provides: ${name#linux-}"
done

mkdir -p root/lab-release/usr/lib root/lab-release/etc
printf '%s\n' 'NAME="Lab Linux"' 'PRETTY_NAME="Lab Linux 9"' 'ID="labdnf"' 'ID_LIKE="rhel fedora"' 'VERSION_ID="9"' >root/lab-release/usr/lib/os-release
ln -s ../usr/lib/os-release root/lab-release/etc/os-release
# It stands for all that the base has.
build lab-release 9 1 rpm 'Provides: system-release = 9' 'Provides: system-release(releasever) = 9' 'Provides: /bin/sh'
dnf -y -q --releasever=9 install rpm/*/lab-release-*.rpm </dev/null
for repository in rpm rpm-updates; do createrepo_c -q "$repository"; done
rm -rf /var/cache/dnf /var/log/dnf* /var/log/hawkey*
END
mv "$work/rpm" "$work/rpm-updates" "$LAB_REPOSITORY"
rm -rf "$work" "$1"/usr/bin/apt* "$1"/usr/bin/dpkg*
