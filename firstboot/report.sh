# What people see of a node's first boot: firstboot.json and firstboot.log in picloud/ on the boot
# partition, for a laptop, and the ACT LED. The partition may be absent, full or read-only, and there
# may be no LED, which must not stop the steps.
# For picloud-firstboot, whose $root, $here, $state, $tries, $delay_s, $trouble and $advice these use.
# shellcheck shell=sh disable=SC2154

now() {
    date -u +%Y-%m-%dT%H:%M:%SZ
}

quoted() { # as a JSON string; most are plain words, and three processes take a Pi 30 ms
    case $1 in
    *[!\ -~]* | *[\"\\]*)
        printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037\177' | sed 's/["\\]/\\&/g')"
        ;;
    *) printf '"%s"' "$1" ;;
    esac
}

# report STATE: to the boot partition. Each file is complete before it takes the old one's place, for
# FAT has no journal; what a cut left behind is overwritten the next time. A subshell: its variables
# are its own.
report() (
    blink "$1"
    fat=$root/boot/picloud
    [ -d "$fat" ] || return 0
    json=$(as_json "$1") && printf '%s\n' "$json" >"$fat/firstboot.new" &&
        mv "$fat/firstboot.new" "$fat/firstboot.json"
    tail -c 32768 "$state/log" >"$fat/firstboot.new" && mv "$fat/firstboot.new" "$fat/firstboot.log"
    sync
) 2>/dev/null

as_json() { # of the first step that failed or runs, or of what is no step's fault ($trouble)
    printf '{"format": 1, "node": ' && quoted "${NODE-}" && printf ', "state": "%s"' "$1"
    at='' at_since='' at_note=${trouble-} at_hint=${advice-} comma=''
    printf ', "time": "%s", "steps": [' "$(now)"
    for step in "$here"/steps/[0-9][0-9]-*; do
        name=${step##*/} now=pending since='' note='' hint=''
        for mark in failed running 'done'; do
            [ -e "$state/$name.$mark" ] && now=$mark
        done
        if [ "$now" != pending ]; then
            { IFS= read -r note && IFS= read -r hint; } <"$state/$name.$now"
        fi
        [ ! -e "$state/$name.since" ] || IFS= read -r since <"$state/$name.since"
        printf '%s\n{"name": ' "$comma" && quoted "$name"
        printf ', "state": "%s", "since": "%s", "note": ' "$now" "$since"
        quoted "$note" && printf ', "hint": ' && quoted "$hint" && printf '}'
        [ -n "${trouble-}" ] || case $at$now in
        failed | running) at=$name at_since=$since at_note=$note at_hint=$hint ;;
        esac
        comma=,
    done
    printf '],\n"step": ' && quoted "$at"
    printf ', "since": "%s", "note": ' "$at_since"
    quoted "$at_note" && printf ', "hint": ' && quoted "$at_hint"
    printf ', "tries": %s, "retry_s": %s}' "${tries:-0}" "${delay_s:-0}"
}

# The ACT LED, in milliseconds on and off: a short flash every two seconds once all is well, a fast
# blink after a failure. While steps run it keeps showing the card's work, or the last failure.
blink() {
    case $1 in
    complete) lit=100 dark=1900 ;;
    failed) lit=100 dark=100 ;;
    *) return 0 ;;
    esac
    for led in "${PICLOUD_SYS:-/sys}"/class/leds/ACT "${PICLOUD_SYS:-/sys}"/class/leds/led0; do
        [ ! -e "$led/trigger" ] || {
            # No kernel loads the module of a pattern by itself.
            grep -qw timer "$led/trigger" || modprobe -q ledtrig-timer
            echo timer >"$led/trigger" && echo "$lit" >"$led/delay_on" && echo "$dark" >"$led/delay_off"
        }
    done
}
