from contextlib import asynccontextmanager


class Toolbox:
    definitions = []

    @staticmethod
    @asynccontextmanager
    async def open(tools, *, settings, clock):
        yield Toolbox()

    async def call(self, name, args):
        return ""

    def kind_of(self, name):
        return "builtin"
