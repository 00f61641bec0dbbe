# What a laptop reads of a node's first boot: firstboot.json and firstboot.log in picloud/ on the boot
# partition. That may be absent, full or read-only, which must not stop the steps.
# For picloud-firstboot, whose $root, $here and $state these functions use.
# shellcheck shell=sh disable=SC2154

quoted() { # as a JSON string
    printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037\177' | sed 's/["\\]/\\&/g')"
}

# report STATE: to the boot partition. Each file is complete before it takes the old one's place, for
# FAT has no journal; what a cut left behind is overwritten the next time. A subshell: its variables
# are its own.
report() (
    fat=$root/boot/picloud
    [ -d "$fat" ] || return 0
    {
        printf '{"format": 1, "node": %s, "state": "%s"' "$(quoted "${NODE-}")" "$1"
        at='' comma=''
        printf ', "time": "%s", "steps": [' "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
        for step in "$here"/steps/[0-9][0-9]-*; do
            name=${step##*/} now=pending note=
            for mark in failed running 'done'; do
                [ -e "$state/$name.$mark" ] && now=$mark note=$(cat "$state/$name.$mark")
            done
            printf '%s\n{"name": "%s", "state": "%s", "note": %s}' \
                "$comma" "$name" "$now" "$(quoted "$note")"
            case $now in failed | running) at=${at:-$name} ;; esac
            comma=,
        done
        printf '], "step": "%s"}\n' "$at"
    } >"$state/json"
    tail -c 32768 "$state/log" >"$state/log.end"
    cp "$state/json" "$fat/firstboot.new" && mv "$fat/firstboot.new" "$fat/firstboot.json" &&
        cp "$state/log.end" "$fat/firstboot.new" && mv "$fat/firstboot.new" "$fat/firstboot.log"
    sync
) 2>/dev/null
