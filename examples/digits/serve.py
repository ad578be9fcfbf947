from model import Digits

from aipod.rpc.server import serve

serve(Digits)
