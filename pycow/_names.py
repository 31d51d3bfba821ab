# SPDX-License-Identifier: Apache-2.0
"""Random names for containers: an adjective and a noun."""

from __future__ import annotations

import secrets

__all__ = ["random_name"]

_ADJECTIVES = (
    "able agile alert amber ample ardent arid azure bold brave brief bright brisk broad calm candid clean "
    "clear clever cosy crisp curious dapper daring deft dense eager early earnest easy elated even exact "
    "fair famous fancy fast fine firm fit fleet fluent fond frank free fresh frosty gentle giddy glad "
    "golden grand great green happy hardy hazel honest humble icy ideal jolly jovial keen kind large "
    "lasting late light lively local loyal lucid lucky lunar mellow merry mighty mild modest native neat "
    "nimble noble open patient placid plain polite prime proud pure quick quiet rapid rare ready regal "
    "rich robust rosy round royal rustic sage scenic serene sharp shiny silent silver simple sleek smart "
    "smooth snug solar solid sound spare spry stable steady still stoic subtle sunny sure swift tall tame "
    "tidy timely tough trim true upbeat urban valid vast vital vivid warm wary wise witty young zesty "
).split()

_NOUNS = (
    "acorn alder anchor anvil apple arch aspen atlas badger bamboo barley basin beacon beaver beech birch "
    "bison bloom boulder bridge brook canyon cedar cherry cliff clover cobalt comet compass copper coral "
    "cove crane creek cricket crow cypress daisy dawn delta dove dune eagle ember falcon fern finch fjord "
    "flint forest fox garnet geyser glade glen granite grove gull harbor hare hawk hazelnut heath heron "
    "hill ibis iris island ivy jade jasper juniper kestrel lagoon lake lantern larch lark laurel lemon "
    "lily linden lion lotus lynx magpie maple marsh meadow merlin mesa mint moon moss mountain nectar oak "
    "oasis olive onyx orchid oriole osprey otter owl panda pearl pebble pepper pine plain plum pond "
    "poplar prairie quail quartz raven reed reef ridge river robin rose rowan sable saffron sage salmon "
    "seal sequoia shore sparrow spruce star stone stork summit swan tern thicket thistle thyme tiger "
    "topaz tulip tundra valley violet walnut wave whale willow wolf wren yarrow zebra "
).split()


def random_name() -> str:
    """Such as "quiet_otter"."""
    return f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_NOUNS)}"
