"""What a request becomes: files and commands, without a machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_machine import FACTS

from llamaforge.errors import UserError
from llamaforge.service.dropin import quoted
from llamaforge.service.gates import version_in
from llamaforge.service.places import in_home, on_machine, program_of
from llamaforge.service.plan import Facts, File, Plan, make
from llamaforge.service.request import Request, merged
from llamaforge.service.settings_text import settings_file as settings_file_text
from llamaforge.spec import settings_file
from llamaforge.spec.fleet import WorkerSettings, variables

PLACES = on_machine()
DROPIN = "/etc/systemd/system/llamaforge-worker.service.d/50-install.conf"


def files(plan: Plan) -> dict[str, File]:
    return {file.path: file for file in plan.files}


def dropin(facts: Facts = FACTS, **request: object) -> list[str]:
    made = files(make(Request(**request), facts, PLACES))  # type: ignore[arg-type]
    return made[DROPIN].content.splitlines() if DROPIN in made else []


def test_a_plain_request_needs_no_choices_of_its_own():
    plan = make(Request(), Facts(systemd=252, running=True), PLACES)
    assert set(files(plan)) == {
        "/usr/local/lib/systemd/system/llamaforge-worker.service",
        "/usr/local/lib/sysusers.d/llamaforge.conf",
        "/usr/local/lib/tmpfiles.d/llamaforge.conf",
        "/etc/llamaforge/worker.conf",
    }


@pytest.mark.parametrize(
    ("version", "gates"), [(249, set()), (252, set()), (253, {"253"}), (256, {"253", "254"})]
)
def test_newer_directives_come_with_a_newer_systemd(version, gates):
    made = files(make(Request(), Facts(systemd=version, running=True), PLACES))
    found = {path[-8:-5] for path in made if "/10-systemd-" in path}
    assert found == gates


def test_a_systemd_that_is_too_old_is_refused():
    with pytest.raises(UserError, match="248"):
        make(Request(), Facts(systemd=248, running=True), PLACES)


def test_versions_are_read_as_distributions_write_them():
    assert version_in("systemd 252 (252.39-1~deb12u2)\n+PAM") == 252
    assert version_in("systemd 256~rc3") == 256
    assert version_in("bash: systemctl: command not found") is None


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("memory", "8G", "MemoryMax=8G"),
        ("cpu", "150%", "CPUQuota=150%"),
        ("nice", "-5", "Nice=-5"),
        ("cpu_policy", "idle", "CPUSchedulingPolicy=idle"),
        ("cpus", "0-3,8", "CPUAffinity=0-3 8"),
        ("numa_node", "0-1", "NUMAMask=0-1"),
        ("workdir", "/srv/a%b", "WorkingDirectory=/srv/a%%b"),
        ("exec", "/usr/bin/taskset -c 0 x", "ExecStart=/usr/bin/taskset -c 0 x"),
    ],
)
def test_an_option_is_a_line(option, value, line):
    assert line in dropin(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("memory", "lots"),
        ("memory", "0"),
        ("cpu", "2"),
        ("nice", "20"),
        ("nice", "-21"),
        ("cpu_policy", "fast"),
        ("cpus", "a"),
        ("cpus", "0\nUser=root"),
        ("numa_node", "-1"),
        ("user", "a b"),
        ("workdir", "home"),
        ("workdir", "/a\nUser=root"),
        ("exec", "x\nUser=root"),
        ("paths", ("../etc",)),
        ("paths", ("/",)),
        ("env", {"A-B": "x"}),
        ("env", {"A": "x\ny"}),
        ("mail_to", "a b@c"),
        ("settings", {"MASTER_PORT": "many"}),
        ("settings", {"LLAMAFORGE_NODE_NAME": "a b"}),
    ],
)
def test_a_wrong_value_is_refused(option, value):
    with pytest.raises(UserError):
        make(Request(**{option: value}), FACTS, PLACES)


def test_a_home_is_shown_folder_by_folder_and_other_folders_are_opened():
    lines = dropin(paths=("/home/a/data", "/mnt/x y"), settings={"HF_HOME": "/mnt/hub"})
    assert "ProtectHome=tmpfs" in lines
    assert "BindPaths=-/home/a/data" in lines
    assert 'ReadWritePaths=-"/mnt/x y"' in lines
    assert "ReadWritePaths=-/mnt/hub" in lines
    assert "ProtectHome=tmpfs" not in dropin(paths=("/mnt/data",))


def test_a_mount_of_another_machine_is_opened_by_the_folder_that_holds_it():
    there = Facts(systemd=252, running=True, remote=("/mnt/nas", "/mnt/nas/inner", "/data"))
    assert "ReadWritePaths=-/mnt" in dropin(there, settings={"HF_HOME": "/mnt/nas/inner/hf"})
    lines = dropin(there, paths=("/mnt/nas/a", "/mnt/nas/b", "/mnt/disk"))
    assert [line for line in lines if line.startswith("ReadWritePaths=")] == [
        "ReadWritePaths=-/mnt",
        "ReadWritePaths=-/mnt/disk",
    ]
    assert "ReadWritePaths=-/data/x" in dropin(there, paths=("/data/x",))  # never the root


def test_a_person_must_exist():
    with pytest.raises(UserError, match="alice"):
        make(Request(user="alice"), FACTS, PLACES)
    known = Facts(systemd=252, running=True, user_group="people")
    lines = dropin(known, user="alice")
    assert "User=alice" in lines
    assert "Group=people" in lines


def test_the_settings_file_explains_every_key_and_is_read_back():
    given = {"MASTER_ADDR": "10.0.0.1", "NODE_RANK": "1", "LLAMAFORGE_ALLOW": "10.0.0.0/8"}
    text = files(make(Request(settings=given), FACTS, PLACES))[
        "/etc/llamaforge/worker.conf"
    ].content
    read = settings_file.parse(text, "worker.conf", variables(WorkerSettings).values())
    assert read.values == given
    for variable in variables(WorkerSettings).values():
        decided_by_the_unit = ("STATE_DIR", "CACHE_DIR", "TOKEN_FILE", "FLEET")
        assert variable in text or variable.removeprefix("LLAMAFORGE_") in decided_by_the_unit


def test_secrets_are_files_that_only_root_reads():
    request = Request(env={"HF_TOKEN": 'a"b$c\\d'})
    made = files(make(request, FACTS, PLACES, token="t0k"))
    for path in ("/etc/llamaforge/token", "/etc/llamaforge/environment"):
        assert made[path].mode == 0o600
        assert made[path].secret
    assert made["/etc/llamaforge/environment"].content.endswith('HF_TOKEN="a\\"b\\$c\\\\d"\n')
    others = [file.content for path, file in made.items() if not file.secret]
    assert not any("t0k" in text or "HF_TOKEN" in text for text in others)


def test_mails_bring_their_programs_settings_and_drop_in():
    made = files(make(Request(mail_to="ops@example.org"), FACTS, PLACES))
    assert made["/usr/local/libexec/llamaforge/mail"].mode == 0o755
    settings = made["/etc/llamaforge/mail.conf"]
    assert settings.mode == 0o600
    assert "\nto = ops@example.org\n" in settings.content
    assert DROPIN.replace("50-install", "60-mail") in made


def test_a_service_of_ones_own_stays_in_the_home():
    places = in_home({}, "/home/a")
    plan = make(Request(memory="2G"), FACTS, places, token="t")
    assert all(file.path.startswith("/home/a/.") for file in plan.files)
    assert "LLAMAFORGE_TOKEN_FILE=/home/a/.config/llamaforge/token" in (
        files(plan)["/home/a/.config/llamaforge/worker.conf"].content
    )
    assert all("--user" in c.words or c.words[0] == "loginctl" for c in plan.commands)
    with pytest.raises(UserError, match="runs as you"):
        make(Request(user="b"), FACTS, places)


def test_a_program_that_stands_elsewhere_is_the_one_that_is_started():
    assert not any(line.startswith("ExecStart") for line in dropin(memory="2G"))
    elsewhere = on_machine("/srv/a b/current")
    lines = files(make(Request(), FACTS, elsewhere))[DROPIN].content.splitlines()
    assert lines[-2:] == ["ExecStart=", 'ExecStart="/srv/a b/current/bin/llamaforge" worker run']
    own = in_home({"XDG_DATA_HOME": "/home/a/data"}, "/home/a")
    made = "".join(file.content for file in make(Request(), FACTS, own).files)
    assert "\nExecStart=/home/a/data/llamaforge/current/bin/llamaforge worker run\n" in made


def test_a_version_of_install_sh_is_told_from_other_environments(tmp_path):
    assert program_of(str(tmp_path / "versions/0.1")) == ""
    (tmp_path / "current").symlink_to("versions/0.1")
    assert program_of(str(tmp_path / "versions/0.1")) == str(tmp_path / "current")
    assert program_of(str(tmp_path / ".venv")) == ""


def test_asked_again_only_what_is_given_changes():
    before = Request(memory="8G", env={"A": "1", "B": "2"}, paths=("/mnt/a",), nice="3")
    after = merged(
        before,
        {"memory": None, "nice": "", "env": {"A": "", "C": "3"}, "paths": ["/mnt/b"]},
    )
    assert after == Request(
        memory="8G", env={"B": "2", "C": "3"}, paths=("/mnt/a", "/mnt/b"), nice=""
    )
    assert merged(after, {"paths": [""]}).paths == ()


def test_paths_are_one_word_in_a_list():
    assert quoted("/mnt/a") == "/mnt/a"
    assert quoted('/mnt/a "b"') == '"/mnt/a \\"b\\""'
    assert quoted("/mnt/100%") == "/mnt/100%%"


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({"memory": "8"}, "64M are the least"),
        ({"memory": "63M"}, "--memory is '63M'"),
        ({"memory": "-1"}, "--memory is '-1'"),
        ({"cpus": "5-2"}, "--cpus is '5-2'"),
        ({"cpus": "1,"}, "--cpus is '1,'"),
        ({"numa_node": "x"}, "--numa-node is 'x'"),
        ({"workdir": "/x\\"}, "backslash"),
        ({"exec": "/usr/bin/true \\"}, "backslash"),
        ({"exec": "/usr/bin/true\nUser=root"}, "line break"),
    ],
)
def test_a_value_that_would_break_the_unit_is_refused(request_, named):
    with pytest.raises(UserError) as error:
        make(Request(**request_), FACTS, PLACES)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("request_", "facts", "named"),
    [
        ({"user": "toor"}, {"user_group": "root", "user_is_root": True}, "never run as root"),
        ({"group": "nobodys"}, {"group_exists": False}, "groupadd nobodys"),
        ({"cpus": "99-100"}, {"cpus": "0-1"}, "this machine has 0-1"),
        ({"numa_node": "7"}, {"numa_nodes": "0"}, "this machine has 0"),
    ],
)
def test_what_this_machine_has_not_is_refused(request_, facts, named):
    with pytest.raises(UserError) as error:
        make(Request(**request_), Facts(systemd=252, running=True, **facts), PLACES)
    assert named in str(error.value)


def test_a_list_may_name_more_than_there_is():
    facts = Facts(systemd=252, running=True, cpus="0-1", numa_nodes="")
    assert "CPUAffinity=1-7" in dropin(facts, cpus="1-7")
    assert "NUMAMask=3" in dropin(facts, numa_node="3")  # a kernel that doesn't say


@given(value=st.text(st.characters(min_codepoint=32, exclude_characters="\x7f"), max_size=12))
def test_every_value_comes_back_from_the_settings_file(value):
    text = settings_file_text({"HF_HOME": value})
    read = settings_file.parse(text, "worker.conf", variables(WorkerSettings).values())
    assert read.values["HF_HOME"] == value
