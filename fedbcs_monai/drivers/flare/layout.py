"""Layout: where things lie in a job, in its results, and in the run folder of whoever submitted it."""

EXPERIMENT = "experiment.json"
"""The configuration in a job, beside NVFlare's own."""

RESULTS = "run"
"""The run folder among a job's results."""

STATISTICS = "statistics.json"
"""What a statistics job leaves."""

RECORD = "flare.json"
"""In the run folder: the startup kit, and the jobs of the run, the newest last."""

JOB = "job"
"""In the run folder: the job as it was submitted."""
