"""Every key of a configuration and of a benchmark, and what it is for."""

KEYS = {
    "stack": "files beneath this one, relative to it, or names of shipped experiments; later ones win",
    "task": "name of the task, for reports",
    "classes": "names of the classes, background first",
    "name": "name of the run, for reports",
    "output": "run folder",
    "sites": "site list (JSON), written by `fedbcs sites`",
    "familiarity": "also learn how cases look at the sites, to warn of images unlike them; false: nobody tells of them",
    "fold": "fold that is tested, for site lists with folds",
    "leave_out": "a site that is not trained on; all its cases are scored, as an unseen site's",
    "pool": "train in one place on the cases of all sites, with all their steps; site: with those of one site",
    "method": "federated method: a class of fedbcs_monai.methods and its fields",
    "rounds": "federated rounds",
    "epochs": "local epochs a round",
    "seed": "of the network's start, the order of the cases and their augmentation",
    "evaluate_every": "rounds between two evaluations on validation cases; the last round is always evaluated",
    "patience": "rounds without a better model on validation cases after which an evaluation ends the run; 0: never",
    "best_on_test": "also score the test cases at every evaluation, only to report the optimistic best on test",
    "reset_optimizer": "forget the optimizer's state after every round",
    "checkpoint_every": "rounds between two checkpoints; a run that is interrupted leaves one as well",
    "keep_checkpoints": "checkpoints kept, the newest; 0: all",
    "examples": "test cases a site whose picture is kept in the run folder",
    "device": "auto, cpu, cuda, cuda:1, mps",
    "precision": "float32, bfloat16 or float16",
    "channels_last": "channels-last memory layout",
    "compile": "torch.compile the plain forward pass",
    "threads": "threads of torch on the CPU; 0: torch's own choice",
    "workers": "processes that read and augment; 0: none",
    "cache": "keep decoded cases in memory; false: slices wait in temporary files, pictures are read every epoch",
    "shuffle": "shuffle the training samples every epoch",
    "network_def": "the network",
    "reading": "transforms that read image and label of a case",
    "preprocessing": "deterministic transforms of a case, `reading` among them",
    "slicing": "a transform from a case to a list of training samples; null: a case is one sample",
    "augmentation": "random transforms of a training sample, to one or to several that go into the same batch",
    "inferer": "how a whole case goes through the network",
    "postprocessing": "transforms from logits to a mask on the case's own grid",
    "loss": "of logits and label",
    "optimizer": "a torch optimizer; its parameters are filled in",
    "schedule": "a torch scheduler of the learning rate, stepped once per round; null: the rate is constant",
    "batch_size": "training samples a step, each as many images as augmentation makes of it",
}

LEAST = {
    **dict.fromkeys(("rounds", "epochs", "batch_size", "evaluate_every", "checkpoint_every"), 1),
    **dict.fromkeys(("patience", "keep_checkpoints", "examples", "threads", "workers", "seed", "fold"), 0),
}
"""Keys that are whole numbers, and how small each may be."""

NAMES = (
    *("stack", "task", "classes", "name", "output", "sites", "leave_out", "method", "device", "precision"),
    *("title", "experiments", "experiment", "label", "methods", "bounds", "ablation", "style", "leave_one_out"),
    *("training", "key", "base", "folder", "python", "allow"),
)
"""Keys of any file whose values are names or paths, so that a NO or a 001 in YAML is text."""

SWITCHES = ("familiarity", "best_on_test", "reset_optimizer", "channels_last", "compile", "cache", "shuffle")
"""Keys that are true or false."""

TEXTS = ("task", "name", "output", "sites", "leave_out", "device", "precision")
"""Keys that are one name or path."""

WORKFLOW = {
    "bundle_root": "folder of the bundle",
    "ckpt_dir": "where its weights are",
    "output_dir": "where its workflows write",
    "dataset_dir": "folder of the data of one site",
    "datalist": "what lists them: a site list, or a datalist of MONAI",
    "site": "the site, where the list has several",
    "suffixes": "how images end",
    "saving": "a transform that writes a mask",
    "network": "the network on its device",
    "val_interval": "epochs between two evaluations",
    "train": "the training workflow",
    "validate": "the evaluation workflow",
    "initialize": "what runs before a workflow",
    "run": "what runs it",
}
"""Keys of a bundle's own workflows, which `monai.bundle` reads and a federation passes by."""

BENCHMARK_KEYS = {
    "stack": "files beneath this one, relative to it, or names of shipped experiments; later ones win",
    "title": "heading of the page",
    "tasks": "the tasks, by name",
    "overrides": "keys of a run, laid over every experiment",
    "seeds": "seeds of a training that names none",
    "folds": "folds of the site lists",
    "trainings": "the trainings that are more than an experiment and the seeds, by name",
    "methods": "trainings compared: Tables 1 and 3, Figure 4 a",
    "bounds": "trainings that the methods are held against: every site alone, all cases in one place",
    "ablation": "trainings with and without style recalibration and prototype alignment: Table 2",
    "sweep": "one training under several values of one key: Figure 3",
    "style": "trainings that normalise style in different places: Figure 4 b",
    "leave_one_out": "trainings repeated once without each site, which is then tested as an unseen one",
}

TASK_KEYS = {
    "sites": "site list (JSON), written by `fedbcs sites`",
    "experiments": "what a training's name stands for: a name of an experiment with {} in the training's place",
    "overrides": "keys of a run, laid over every experiment of this task",
}

TRAINING_KEYS = {
    "experiment": "what stands for {} in the task's `experiments`, if not the training's own name",
    "label": "how its row is called, if not by the experiment's name",
    "seeds": "its seeds",
    "overrides": "keys of a run, laid over the experiment",
}

SWEEP_KEYS = {
    "training": "which training",
    "key": "the key of a run that varies, such as method::tau",
    "values": "its values",
    "base": "a training to compare with",
    "seeds": "seeds, if not those of the benchmark",
}
