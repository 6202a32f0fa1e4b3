# Completion of paddock for fish: paddock completion fish > ~/.config/fish/completions/paddock.fish
function __paddock_complete
    set -l line (commandline -cp)
    set -l program (string replace -r '^~' $HOME -- (commandline -opc)[1])
    set -l items ({ask} $program 2>/dev/null | string match -r '.+')
    if test (count $items) -gt 0
        printf '%s\n' $items
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command paddock --no-files --arguments '(__paddock_complete)'
