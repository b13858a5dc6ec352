"""Terraform and OpenTofu: `init` in a directory of its own, with a configuration of its own."""

import os
import tempfile
from pathlib import Path

from .process import run
from .tf_registry import HOST, MODULE_VERSION, VERSION

PROVIDER = f"""\
terraform {{
  required_providers {{
    demo = {{
      source  = "{HOST}/acme/demo"
      version = "{VERSION}"
    }}
  }}
}}
"""
MODULE = f"""\
module "net" {{
  source  = "{HOST}/acme/net/aws"
  version = "{MODULE_VERSION}"
}}
"""
HOST_BLOCK = """\
host "{host}" {{
  services = {{
    "providers.v1" = "{url}/tf/acme/v1/providers/"
    "modules.v1"   = "{url}/tf/acme/v1/modules/"
  }}
}}
"""
MIRROR = """\
provider_installation {{
  network_mirror {{
    url     = "{url}/tf/acme/mirror/"
    include = ["{host}/*/*"]
  }}
  direct {{
    exclude = ["{host}/*/*"]
  }}
}}
"""


class Tf:
    """One of the two programs."""

    def __init__(self, program: str, scratch: Path):
        self.program = program
        self.scratch = scratch

    def init(self, client_configuration: str, sources: str, environment=None, ok=(0,)):
        """Runs `init` as for the first time; returns the directory and what was printed."""
        directory = Path(tempfile.mkdtemp(prefix=self.program, dir=self.scratch))
        rc = directory / "client.tfrc"
        rc.write_text(client_configuration)
        (directory / "main.tf").write_text(sources)
        own = {
            "HOME": str(directory),
            "TF_CLI_CONFIG_FILE": str(rc),
            "CHECKPOINT_DISABLE": "1",
            "TF_IN_AUTOMATION": "1",
        }
        own = {**os.environ, **own, **(environment or {})}
        done = run(self.program, "init", "-no-color", "-input=false", ok=ok, env=own, cwd=directory)
        return directory, (done.stdout + done.stderr).decode()

    def by_host(self, url: str, **options):
        """Provider and module by the registry protocols, over plain HTTP."""
        return self.init(HOST_BLOCK.format(host=HOST, url=url), PROVIDER + MODULE, **options)

    def by_mirror(self, url: str, authority: Path, **options):
        """The provider by the network mirror protocol, which is never spoken over plain HTTP."""
        environment = {"SSL_CERT_FILE": str(authority)}
        return self.init(MIRROR.format(host=HOST, url=url), PROVIDER, environment, **options)
