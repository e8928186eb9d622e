"""What the union did, and would do, as data: nothing here prints.

    which.py         the layer that a path comes from, and what hides what        -> Which
    layer_tree.py    all paths, with what each layer has there                      -> LayerTree
    folding.py       which of them a picture of limited size shows
    drawing.py       the picture, as SVG; page.py as a page of HTML
    simulator.py     the real engine on layers in memory, one command at a time     -> Step
    world.py         layers in memory, and what is mounted over them
    script.py        the lines of a script                                          -> Command
    shell.py         ls, cat, mv, … on a file system by path                        -> lines
    picture.py       what each layer has stored, what people see, what a command changed
    personality.py   known behaviours of other union file systems
    lesson.py        lessons: a scene, a question, the answer out of a real run     -> Lesson

Nothing of Linux is needed: layers are `unionfs.layers.memory`, the clock is the script's own.
"""
