#!/bin/sh
# Make .venv: the locked packages and the distributions of this repository. `make install` calls it; when nothing is to be
# done it says nothing and takes some 20 milliseconds. PYTHON names the interpreter; else python3.11 or a python3 that is 3.11.
#
# .venv counts only when it is whole. The file .venv/.whole says so: it is written last, and removed before anything in .venv
# changes, so that whatever an interruption left behind is made anew. It holds Python's version and the path of the checkout,
# since both are written all over .venv. Beside it stand copies of what was installed: .venv/.packages and .venv/.project.
set -eu
cd "$(dirname "$0")/.."
here=$(pwd -P)

say() {
	printf '%s\n' "$*" >&2
}

# Say what is done, do it, say how long it took.
step() {
	printf '%s … ' "$1" >&2
	shift
	began=$(date +%s)
	if "$@" >&2; then
		say "$(($(date +%s) - began)) s"
	else
		say "failed after $(($(date +%s) - began)) s"
		return 1
	fi
}

# Print the version of a Python as 3.11, or nothing when it does not run.
version_of() {
	"$1" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

# Set `python` to the interpreter that .venv is made with, or end with a message.
find_python() {
	found=
	set -- python3.11 python3
	test -z "${PYTHON:-}" || set -- "$PYTHON"
	for python; do
		version=$(version_of "$python")
		case $version in
		3.11) return 0 ;;
		3.1[2-9]) test -z "${PYTHON:-}" || return 0 ;; # not tested, so only on request
		esac
		if test -n "$version"; then version="is $version"; fi
		found="$found, $python ${version:-does not run}"
	done
	say "Habeas needs Python 3.11 (${found#, })."
	say "Install it, or name one: make PYTHON=/path/to/python3.11"
	exit 1
}

# End with a message when `python` cannot make an environment: Debian splits that part off.
need_venv() {
	"$python" -I -c 'import ensurepip, venv' 2>/dev/null && return
	package=python3-venv
	test "$(version_of python3)" = "$version" || package=python$version-venv
	say "$python cannot make virtual environments: its module ensurepip or venv is missing."
	say "On Debian and Ubuntu: sudo apt-get install $package"
	exit 1
}

# Print why .venv cannot be kept, or nothing when it can.
why_anew() {
	if ! test -e .venv; then
		echo "there is none yet"
	elif ! test -s .venv/.whole; then
		echo "what is there is not whole"
	else
		read -r version place <.venv/.whole || true
		if test "$place" != "$here"; then
			echo "the checkout was at $place"
		elif test "$(version_of .venv/bin/python)" != "$version"; then
			echo "its Python $version is gone"
		elif test -n "${PYTHON:-}" && test "$(version_of "$PYTHON")" != "$version"; then
			echo "it is of Python $version, not of $PYTHON"
		fi
	fi
}

project_files() {
	cat libs/*/pyproject.toml services/*/pyproject.toml deploy/*/pyproject.toml
}

pip() {
	.venv/bin/python -m pip "$@" --disable-pip-version-check --no-input
}

install_packages() {
	pip install --quiet --require-hashes --requirement requirements.lock
}

install_project() {
	set --
	for file in libs/*/pyproject.toml services/*/pyproject.toml deploy/*/pyproject.toml; do
		set -- "$@" --editable "./${file%/pyproject.toml}"
	done
	pip install --quiet --no-deps --no-build-isolation "$@" || return 1
	broken=$(pip check) || { say "$broken" && return 1; }
}

# Two at once would spoil each other's work. The lock is on this file and ends with the process that holds it, also pip.
if command -v flock >/dev/null; then
	exec 9<deploy/install.sh
	flock --nonblock 9 || { say "waiting for another installation into $here/.venv" && flock 9; }
fi

reason=$(why_anew)
if test -n "$reason"; then
	find_python
	need_venv
	rm -f .venv/.whole
	rm -rf .venv
	step "making .venv with $python ($reason)" "$python" -m venv .venv || { rm -rf .venv && exit 1; }
fi
if ! cmp -s requirements.lock .venv/.packages; then
	rm -f .venv/.whole
	count=$(grep -c '^[a-zA-Z0-9].*==' requirements.lock)
	step "installing $count locked packages, about a minute" install_packages
	cp requirements.lock .venv/.packages
fi
if ! test -f .venv/.whole || ! project_files | cmp -s - .venv/.project; then
	rm -f .venv/.whole
	step "installing the project" install_project
	project_files >.venv/.project
fi
if ! test -f .venv/.whole; then
	echo "$(version_of .venv/bin/python) $here" >.venv/.whole.part
	mv .venv/.whole.part .venv/.whole
fi
