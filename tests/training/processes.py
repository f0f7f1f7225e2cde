"""Processes that find each other, started for an engine as ``accelerate launch --config_file`` starts them."""

import os
import socket
from importlib.resources import files

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from support import warm


def launched_with(engine):
    """The variables that the launcher sets for a packaged configuration."""
    config = files("bfpo.recipes") / "accelerate" / f"{engine}.yaml"
    arguments = launch_command_parser().parse_args(["--config_file", str(config), "script.py"])
    arguments, defaults, _ = _validate_launch_command(arguments)
    if arguments.use_deepspeed:
        # As in accelerate's launch_command.
        arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        _, environment = prepare_deepspeed_cmd_env(arguments)
        # Otherwise it would look for a GPU.
        environment["DS_ACCELERATOR"] = "cpu"
    else:
        environment = prepare_multi_gpu_env(arguments)
    return {name: value for name, value in environment.items() if os.environ.get(name) != value}


def run(processes, environment, function, *arguments):
    """Call a function in so many processes, all of which must end well."""
    for running in start(processes, environment, function, *([arguments] * processes)):
        done = running.wait(200)
        assert done.returncode == 0, done.stderr[-3000:]


def start(processes, environment, function, *arguments):
    """Start so many processes, each with a call of the function and arguments of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = dict(environment) | {"OMP_NUM_THREADS": "1"}
    if processes > 1:
        common |= {"WORLD_SIZE": f"{processes}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    ranks = [{"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"} if processes > 1 else {} for rank in range(processes)]
    return [warm.start(function, *own, environment=common | rank) for own, rank in zip(arguments, ranks, strict=True)]
