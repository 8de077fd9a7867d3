"""Which keys a composed config has."""

from medbot_exp.sweep.config_keys import choices_of, dotted, exists, meant, within


def test_keys_are_there_whatever_their_value(grouped_config):
    keys = ("optimizer", "optimizer.lr", "lora.alpha", "lora.target.1", "none", "absent", "lora.target.2", "none.x")
    assert [exists(grouped_config, key) for key in keys] == [True] * 5 + [False] * 3
    assert choices_of(grouped_config)["optimizer"] == "adamw"
    assert dotted(grouped_config)[:3] == ["optimizer", "optimizer.name", "optimizer.lr"]
    assert not any(key.startswith("hydra") for key in dotted(grouped_config))


def test_key_that_was_meant_is_asked_for(grouped_config):
    assert meant("optimizer.lrr", grouped_config) == "; did you mean optimizer.lr?"
    assert meant("zzzzzz", grouped_config) == ""


def test_keys_of_a_group_are_those_in_its_package():
    assert within("db.mysql.port", ["db/mysql"]) and not within("db.mysqlx", ["db/mysql"])
