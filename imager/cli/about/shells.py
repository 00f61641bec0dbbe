"""What a shell is told once, so that TAB asks this program.

In: nothing. Out: for each shell the text that it reads. The words of the line come to the program
on standard input and never as its arguments: whatever happens on the way, a line that is only
half typed is not carried out. It is the program on the PATH, wherever the line begins: TAB alone
runs nothing of a stranger's. It answers in lines: a kind, and for a word also the word
and what it means, with tabs between them.
"""

from __future__ import annotations

from collections.abc import Mapping

_BASH = r"""# picloud-image: completion for bash 4.4 and newer.
_picloud_image() {
    local kind word _
    COMPREPLY=()
    while IFS=$'\t' read -r kind word _; do
        case $kind in
        word) COMPREPLY+=("$word") ;;
        file) compopt -o default ;;
        folder) compopt -o dirnames ;;
        esac
    done < <(printf '%s' "${COMP_LINE:0:COMP_POINT}" |
        picloud-image completion bash --answer 2>/dev/null)
}
complete -o nosort -F _picloud_image picloud-image
"""

_ZSH = r"""#compdef picloud-image
# picloud-image: completion for zsh.
_picloud_image() {
    local line
    local -a parts plain described
    compset -P '--*='
    for line in "${(@f)$(printf '%s\0' "${(@Q)words[1,CURRENT]}" |
        picloud-image completion zsh --answer 2>/dev/null)}"; do
        parts=("${(@ps:\t:)line}")
        case $parts[1] in
        word)
            if [[ -n $parts[3] ]]; then
                described+=("${parts[2]//:/\\:}:$parts[3]")
            else
                plain+=("$parts[2]")
            fi ;;
        file) _files ;;
        folder) _files -/ ;;
        esac
    done
    (( $#plain )) && compadd -V picloud-image -a plain
    (( $#described )) && _describe -V picloud-image described
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _picloud_image "$@"
else
    compdef _picloud_image picloud-image
fi
"""

_FISH = r"""# picloud-image: completion for fish 3.1 and newer.
function __picloud_image
    for line in (printf '%s\0' (commandline -opc) (commandline -ct) |
        picloud-image completion fish --answer 2>/dev/null)
        set -l parts (string split \t -- $line)
        switch $parts[1]
            case word
                printf '%s\t%s\n' $parts[2] $parts[3]
            case file
                __fish_complete_path (commandline -ct)
            case folder
                __fish_complete_directories (commandline -ct)
        end
    end
end
complete --command picloud-image --no-files --keep-order --arguments '(__picloud_image)'
"""

SCRIPTS: Mapping[str, str] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
"""By the name of the shell."""
