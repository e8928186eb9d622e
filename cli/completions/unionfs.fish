# fish completion for unionfs. `unionfs __complete` finds the candidates, paths are fish's own: cli/complete.py.

function __unionfs_complete
    set -l before (commandline -opc)
    set -l word (commandline -ct)
    set -l program (string replace -r '^~/' "$HOME/" -- $before[1])
    set -l answer ($program __complete fish $before[2..-1] (string unescape -- $word; or echo -- $word) 2>/dev/null)
    set -l kind (string split ' ' -- $answer[1])
    for line in $answer[2..-1]
        echo -- $line
    end
    test "$kind[1]" = -; and return
    set -l head (string sub -l $kind[2] -- $word)
    set -l path (string sub -s (math $kind[2] + 1) -- $word)
    switch $kind[1]
        case files
            set -a paths (complete -C "'' $path")
        case directories
            set -a paths (complete -C "'' $path" | string match -r '^.*/(?:\t.*)?$')
        case tars
            set -a paths (complete -C "'' $path" | string match -r '^.*(?:/|\.tar|\.tar\..*|\.tgz|\.tzst)(?:\t.*)?$')
    end
    for one in $paths
        echo -- $head$one
    end
end

complete -c unionfs -f -a '(__unionfs_complete)'
