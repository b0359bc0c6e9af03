"""A real Slurm on this machine: munge, a controller, some pretended GPU nodes and an sshd as their login node, all on
loopback, as the user who runs the tests, and nothing outside one folder. It knows nothing of SkyPilot's own files.

Partitions are the zones. `spot-X` and `ondemand-X` share node X; a job of the second takes the node from a job of
the first, which is Slurm's real preemption: SIGTERM, `GRACE_SECONDS` to leave, then SIGKILL.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import psutil

from tests.servers import free_port, free_ports

NODES = {letter: f"0x7f0000{number:02x}" for number, letter in enumerate("abcdefghijklmnopqrstuvwx", start=1)}
"""Letter to Slurm's name of the node. SkyPilot asks for the address of that name, and any resolver reads this one as
127.0.0.1 and so on, without a line in /etc/hosts."""
PAIRS = ("kl", "mn")
"""Partitions of two nodes, for a task of several."""
GPUS = 8
GRACE_SECONDS = 6
_CLUSTER = "vlaunchsim"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sshd", "sbatch", "rsync")
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def missing() -> list[str]:
    """What has to be installed first; `make cluster-packages` does."""
    return [program for program in _PROGRAMS if shutil.which(program, path=_PATH) is None]


class Slurm:
    """The cluster in `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        """Of whoever logs in: what would be the shared home directory of a cluster."""
        self.ssh_port = free_port()
        self._started: list[psutil.Process] = []

    def start(self) -> None:
        """Everything up, every node idle."""
        for folder in ("etc", "run", "log", "state", "bin", "work", "tmp", "gpus", "home/.ssh"):
            (self.root / folder).mkdir(parents=True)
        self._munge()
        self._slurm()
        self._sshd()
        self._wait_until_idle()

    def stop(self) -> None:
        """Nothing of it runs any more."""
        self.slurm("scancel", "--user", getpass.getuser())
        _end(self._started)
        _end(self.processes())  # steps that outlived their slurmd

    def slurm(self, *command: str) -> str:
        """The output of one of Slurm's commands."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()

    def take(self, node: str) -> str:
        """Take the node away from whoever has it on spot; the job that holds it now."""
        return self.slurm(
            "sbatch", "--parsable", "--partition", f"ondemand-{node}", f"--gres=gpu:a100:{GPUS}", "--job-name=taker",
            "--output=/dev/null", "--wrap", "sleep 3600",
        )  # fmt: skip

    def give_back(self, job: str) -> None:
        self.slurm("scancel", job)

    def give_all_back(self) -> None:
        self.slurm("scancel", "--name=taker")

    def jobs(self, run: str = "") -> list[str]:
        """Names of what Slurm runs or has in its queue, of a run or of all; but for `take`'s."""
        names = self.slurm("squeue", "--noheader", "--format=%j").split()
        return [name for name in names if name != "taker" and name.startswith(run)]

    def processes(self) -> list[psutil.Process]:
        """Every process that a job of this cluster has started."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_CLUSTER_NAME") == _CLUSTER:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def on(self, node: str) -> bool:
        """Whether a job but `take`'s runs on the node."""
        names = self.slurm("squeue", "--noheader", "--format=%j", f"--nodelist={NODES[node]}", "--states=R").split()
        return any(name != "taker" for name in names)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": _PATH, "HOME": str(self.home), "SLURM_CONF": str(self.root / "etc" / "slurm.conf")}

    def _munge(self) -> None:
        run, key = self.root / "run", self.root / "etc" / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self._daemon(
            [
                "munged", "--force", f"--key-file={key}", f"--socket={run}/munge.socket",
                f"--pid-file={run}/munged.pid", f"--log-file={self.root}/log/munged.log",
                f"--seed-file={run}/munged.seed",
            ],
            run / "munged.pid",
        )  # fmt: skip

    def _slurm(self) -> None:
        etc, user = self.root / "etc", getpass.getuser()
        names = ("controller", *NODES)
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        host = socket.gethostname().split(".")[0]
        lines = [
            f"ClusterName={_CLUSTER}", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={ports['controller']}",
            "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",
            f"AuthType=auth/munge\nAuthInfo=socket={self.root}/run/munge.socket\nCredType=cred/munge",
            f"SlurmUser={user}\nSlurmdUser={user}",
            f"StateSaveLocation={self.root}/state\nSlurmdSpoolDir={self.root}/spool-%n",
            f"SlurmctldPidFile={self.root}/run/slurmctld.pid\nSlurmdPidFile={self.root}/run/slurmd-%n.pid",
            f"SlurmctldLogFile={self.root}/log/slurmctld.log\nSlurmdLogFile={self.root}/log/slurmd-%n.log",
            "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSwitchType=switch/none\nMpiDefault=none",
            "ReturnToService=2\nSlurmdParameters=config_overrides",
            "SchedulerType=sched/backfill\nSchedulerParameters=sched_interval=2,bf_interval=2,defer_batch",
            "SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU_Memory",
            "AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none",
            "GresTypes=gpu\nKillWait=2\nMinJobAge=300\nSlurmdTimeout=120",
            "PreemptType=preempt/partition_prio\nPreemptMode=CANCEL",
        ]  # fmt: skip
        gres = ["AutoDetect=off"]
        for node, name in NODES.items():
            lines.append(
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[node]} CPUs=128 "
                f"RealMemory=1000000 Gres=gpu:a100:{GPUS} State=UNKNOWN"
            )
            # Slurm leaves out GPUs without a device file; an empty file will do.
            for gpu in range(GPUS):
                (self.root / "gpus" / f"{node}{gpu}").touch()
            gres.append(f"NodeName={name} Name=gpu Type=a100 File={self.root}/gpus/{node}[0-{GPUS - 1}]")
        pairs = {pair: ",".join(NODES[letter] for letter in pair) for pair in PAIRS}
        for zone, nodes in {**NODES, **pairs}.items():
            lines += [
                f"PartitionName=spot-{zone} Nodes={nodes} MaxTime=7-0 State=UP PriorityTier=1 PreemptMode=CANCEL "
                f"GraceTime={GRACE_SECONDS}",
                f"PartitionName=ondemand-{zone} Nodes={nodes} MaxTime=7-0 State=UP PriorityTier=100 PreemptMode=OFF",
            ]
        (etc / "slurm.conf").write_text("\n".join(lines) + "\n")
        (etc / "gres.conf").write_text("\n".join(gres) + "\n")
        self._daemon(["slurmctld", "-c", "-f", str(etc / "slurm.conf")], self.root / "run" / "slurmctld.pid")
        for name in NODES.values():
            (self.root / f"spool-{name}").mkdir()
            self._daemon(
                ["slurmd", "-N", name, "-f", str(etc / "slurm.conf")], self.root / "run" / f"slurmd-{name}.pid"
            )

    def _sshd(self) -> None:
        """A login node. SkyPilot logs in, and on a first contact installs uv from the internet with Python 3.10;
        here `curl` answers with the uv of this environment, and that uv takes the Python that is there."""
        bin_, etc = self.root / "bin", self.root / "etc"
        uv = Path(sys.prefix, "bin", "uv")
        link = f'mkdir -p "$UV_INSTALL_DIR" && ln -sfn {bin_}/uv "$UV_INSTALL_DIR/uv"'
        _script(
            bin_ / "curl",
            f'case "$*" in */uv/install.sh*) echo \'{link}\';; *) exec /usr/bin/curl "$@";; esac',
        )
        # SkyPilot then installs itself on each machine, 30 s of CPU a time. Here its environment there sees the
        # packages of this one instead, and there is nothing to install. All machines are one: a skylet looks for a
        # port that is free, and another takes it before it listens, so each begins to look elsewhere.
        (bin_ / "port.py").write_text(
            "import random\nimport sys\n\nif 'sky.skylet.attempt_skylet' in sys.orig_argv:\n"
            "    from sky.skylet import constants\n\n    constants.SKYLET_GRPC_PORT += random.randrange(5000)\n"
        )
        # What answers in place of vLLM, which needs a GPU.
        dummy = Path(__file__).resolve().parents[2] / "benchmarks" / "dummy_engine.py"
        _script(
            bin_ / "vllm",
            f'while [ "$1" != --port ]; do shift; done; exec {sys.executable} {dummy} "$2" --vllm',
        )
        _script(
            bin_ / "uv",
            "export UV_COMPILE_BYTECODE=0 SSL_CERT_FILE=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}\n"
            'case "$1 $2" in "pip install" | "pip uninstall") exit 0;; esac\n'
            'case "$*" in "venv "*/engine) mkdir -p "${@: -1}/bin"\n'
            f'  cp {bin_}/vllm "${{@: -1}}/bin"; exit 0;; esac\n'
            f'a=(); for x in "$@"; do [ "$x" = 3.10 ] && x={sys.executable}; a+=("$x"); done\n'
            f'{uv} "${{a[@]}}" || exit 1\n'
            'for x in "$@"; do case "$x" in */skypilot-runtime)\n'
            '  site=$(echo "$x"/lib/python3*/site-packages)\n'
            f'  echo {sysconfig.get_path("purelib")} >"$site/this.pth"; cp {bin_}/port.py "$site/sitecustomize.py"\n'
            "esac; done",
        )
        _quietly("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(etc / "host_key"))
        _quietly("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(etc / "user_key"))
        shutil.copy(etc / "user_key.pub", self.home / ".ssh" / "authorized_keys")
        # SkyPilot runs login shells, whose /etc/profile sets PATH; this sets it again.
        profile = f"export PATH={bin_}:{_PATH} SLURM_CONF={etc}/slurm.conf\n"
        # The trainer's environment is this one, and threads are as many as a small machine has.
        profile += f"export VLAUNCH_ENV={sys.prefix} OMP_NUM_THREADS=1\n"
        (self.home / ".bash_profile").write_text(profile)
        (self.home / ".bashrc").write_text(profile)
        (etc / "sshd_config").write_text(
            f"Port {self.ssh_port}\nListenAddress 127.0.0.1\nHostKey {etc}/host_key\nPidFile {self.root}/run/sshd.pid\n"
            f"AuthorizedKeysFile {self.home}/.ssh/authorized_keys\nPermitRootLogin prohibit-password\n"
            "UsePAM no\nPasswordAuthentication no\nStrictModes no\nMaxSessions 200\nMaxStartups 150:30:200\n"
            f"Subsystem sftp internal-sftp\n"
            f"SetEnv HOME={self.home} PATH={bin_}:{_PATH} SLURM_CONF={etc}/slurm.conf\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        sshd = shutil.which("sshd", path=_PATH)
        assert sshd is not None
        self._daemon(
            [sshd, "-f", str(etc / "sshd_config"), "-E", f"{self.root}/log/sshd.log"], self.root / "run" / "sshd.pid"
        )

    def _daemon(self, command: list[str], pid_file: Path) -> None:
        """Start a program that goes into the background, and learn its process."""
        subprocess.run(command, env=self.environment, check=True, timeout=60, stdout=subprocess.DEVNULL)
        over = time.monotonic() + 60
        while not (pid_file.exists() and pid_file.read_text().strip()):
            assert time.monotonic() < over, f"{command[0]} did not start"
            time.sleep(0.1)
        self._started.append(psutil.Process(int(pid_file.read_text())))

    def _wait_until_idle(self) -> None:
        over = time.monotonic() + 120
        while set(self.slurm("sinfo", "--noheader", "--format=%T").split()) != {"idle"}:
            assert time.monotonic() < over, self.slurm("sinfo")
            time.sleep(0.5)


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def _quietly(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _end(processes: list[psutil.Process]) -> None:
    """SIGTERM, and SIGKILL where that is not enough."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        _, processes = psutil.wait_procs(processes, 10)
