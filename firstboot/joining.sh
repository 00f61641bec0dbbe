# For the steps that bring a node to its master: nothing to do where it shall not have one.
# shellcheck shell=sh
unit=salt-minion.service

seconds_on() { # since this node was switched on; unlike the clock nothing sets it (proc(5))
    read -r seconds _ </proc/uptime
    echo "${seconds%%.*}"
}

if [ "${MINION-yes}" != yes ]; then
    echo "this node has no Salt minion"
    exit 0
fi
if ! systemctl cat "$unit" >/dev/null 2>&1; then
    echo "no-salt: Salt is not on this node; install it and the node joins ${MASTER:-its master}"
    exit 0
fi
