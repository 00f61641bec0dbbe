# For the steps that bring a node to its master: nothing to do where it shall not have one.
# shellcheck shell=sh
unit=salt-minion.service

seconds_on() { # since this node was switched on; unlike the clock nothing sets it (proc(5))
    read -r seconds _ </proc/uptime
    echo "${seconds%%.*}"
}

rest_s=3
rest() { # [UNTIL] between two looks; each is work for a Pi that is starting Salt, so ever longer, to 15 s
    left_s=$rest_s
    until [ "$left_s" -eq 0 ] || "${1-false}"; do
        sleep 1
        left_s=$((left_s - 1))
    done
    [ "$rest_s" -ge 15 ] || rest_s=$((rest_s + 3))
}

if [ "${MINION-yes}" != yes ]; then
    echo "this node has no Salt minion"
    exit 0
fi
if [ -e "$PICLOUD_ROOT/var/lib/picloud/firstboot/50-salt.failed" ]; then
    echo "not before Salt is on this node"
    exit 1
fi
if ! systemctl cat "$unit" >/dev/null 2>&1; then
    echo "no-salt: Salt is not on this node; once it is: systemctl enable --now $unit"
    exit 0
fi
